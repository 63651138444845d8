"""Assistants: made, read, listed, changed."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response

from api.auth import Caller
from api.deps import Given
from api.schemas.assistants import AssistantAnswer, AssistantChange, AssistantPage, NewAssistant
from api.schemas.paging import Cursor, Limit
from models.services import assistants

router = APIRouter(prefix="/v1/assistants", tags=["assistants"])


@router.post("", status_code=201)
async def create(body: NewAssistant, principal: Caller, given: Given, response: Response) -> AssistantAnswer:
    """Make an assistant of the caller's company."""
    async with given.db.session_for(principal) as session:
        row = await assistants.create(session, principal, body)
    response.headers["Location"] = f"/v1/assistants/{row.id}"
    return AssistantAnswer.of(row)


@router.get("")
async def list_assistants(principal: Caller, given: Given, cursor: Cursor = None, limit: Limit = 50) -> AssistantPage:
    """Assistants of the caller's company (a holding's: of its subsidiaries too), newest first."""
    async with given.db.session_for(principal) as session:
        rows, next_cursor = await assistants.list_page(session, principal, cursor, limit)
    return AssistantPage(items=[AssistantAnswer.of(row) for row in rows], next_cursor=next_cursor)


@router.get("/{assistant_id}")
async def read(
    assistant_id: Annotated[str, Path(min_length=1, max_length=64, description="Its id, or its slug in your company.")],
    principal: Caller,
    given: Given,
) -> AssistantAnswer:
    """One assistant."""
    async with given.db.session_for(principal) as session:
        return AssistantAnswer.of(await assistants.read(session, principal, assistant_id))


@router.put("/{assistant_id}")
async def update(assistant_id: UUID, body: AssistantChange, principal: Caller, given: Given) -> AssistantAnswer:
    """Replace what is said of an assistant, if nobody else has since `version`."""
    async with given.db.session_for(principal) as session:
        row = await assistants.update(session, principal, assistant_id, body.version, body.to_domain())
        return AssistantAnswer.of(row)
