"""Actions and questions as people see them, and the keys of assistants whose agents run elsewhere."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from api.auth import Caller
from api.deps import Given
from api.schemas.actions import (
    ActionList,
    ActionPage,
    AnswerBody,
    KeyAnswer,
    KeyList,
    NewKeyAnswer,
    NewKeyBody,
    QuestionList,
)
from api.schemas.paging import Cursor, Limit
from models.domain.action import ActionStatus
from models.domain.action_views import ActionView
from models.services import action_views, assistant_keys, events, questions, work_items
from models.services.questions import QuestionView

router = APIRouter(prefix="/v1", tags=["actions"])


@router.get("/actions")
async def list_actions(
    principal: Caller,
    given: Given,
    assistant_id: UUID | None = None,
    status: ActionStatus | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> ActionPage:
    """Actions of the caller's company (a holding's: of its subsidiaries too), newest first."""
    async with given.db.session_for(principal) as session:
        items, next_cursor = await action_views.list_page(session, assistant_id, status, cursor, limit)
    return ActionPage(items=items, next_cursor=next_cursor)


@router.get("/actions/{action_id}/details")
async def read_action(action_id: UUID, principal: Caller, given: Given) -> ActionView:
    """One action, whole."""
    async with given.db.session_for(principal) as session:
        return await action_views.read(session, action_id)


@router.get("/work-items/{work_item_id}/actions")
async def of_item(work_item_id: UUID, principal: Caller, given: Given) -> ActionList:
    """What the work item's agent has asked for, and what became of it."""
    async with given.db.session_for(principal) as session:
        return ActionList(items=await action_views.of_item(session, work_item_id))


@router.get("/work-items/{work_item_id}/questions")
async def questions_of_item(work_item_id: UUID, principal: Caller, given: Given) -> QuestionList:
    """What the work item's agent has asked whoever asked for the work."""
    async with given.db.session_for(principal) as session:
        return QuestionList(items=await questions.of_item(session, work_item_id))


@router.post("/work-items/{work_item_id}/questions/{question_id}/answer")
async def answer(
    work_item_id: UUID, question_id: UUID, body: AnswerBody, principal: Caller, given: Given
) -> QuestionView:
    """Answer an agent's question, once. An answer gives no leave: for that the agent asks for an action."""
    async with work_items.acting_on(given.db, principal, work_item_id) as session:
        found = await questions.answer(session, principal, work_item_id, question_id, body.answer)
        tenant_id: UUID = session.info["tenant_id"]
    await given.cache.publish(tenant_id, f"question:{question_id}")
    await events.ring(given.cache, tenant_id, work_item_id)
    return found


@router.post("/assistants/{assistant_id}/keys", status_code=201)
async def create_key(assistant_id: UUID, body: NewKeyBody, principal: Caller, given: Given) -> NewKeyAnswer:
    """Make a key for an agent of this assistant that runs elsewhere; it is shown this once."""
    async with given.db.session_for(principal) as session:
        row, key = await assistant_keys.create(session, principal, assistant_id, body.expires_in_days)
    return NewKeyAnswer(**KeyAnswer.of(row).model_dump(), key=key)


@router.get("/assistants/{assistant_id}/keys")
async def list_keys(assistant_id: UUID, principal: Caller, given: Given) -> KeyList:
    """An assistant's keys, newest first."""
    async with given.db.session_for(principal) as session:
        rows = await assistant_keys.list_keys(session, principal, assistant_id)
    return KeyList(items=[KeyAnswer.of(row) for row in rows])


@router.delete("/assistants/{assistant_id}/keys/{key_id}")
async def revoke_key(assistant_id: UUID, key_id: UUID, principal: Caller, given: Given) -> KeyAnswer:
    """Let a key open nothing any more."""
    async with given.db.session_for(principal) as session:
        return KeyAnswer.of(await assistant_keys.revoke(session, principal, assistant_id, key_id))
