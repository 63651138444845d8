"""Questions that an agent asks whoever asked for the work: no leave is given by an answer, only knowledge."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import AgentCaller
from models.domain.errors import Conflict, Forbidden, IdempotencyMismatch, NotFound
from models.domain.events import EventKind
from models.domain.principal import Principal, Role
from models.domain.views import View
from models.domain.work_item import WorkItemStatus
from models.repositories import agents as rows
from models.repositories import assistants as assistant_rows
from models.repositories import tenants as tenant_rows
from models.repositories import work_items as item_rows
from models.services import agents, audit, events, lifecycle, policies
from models.services.action_effects import invalid
from models.services.ids import new_id
from models.services.plain_json import no_nul
from models.tables.actions import QuestionRow
from models.tables.work import WorkItemRow

Option = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), AfterValidator(no_nul)]
Answer = Annotated[str, StringConstraints(min_length=1, max_length=4000, strip_whitespace=True), AfterValidator(no_nul)]


class NewQuestion(BaseModel):
    """What an agent asks.

    Attributes:
        options: Answers of which one is to be given; none: any text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: Annotated[
        str, StringConstraints(min_length=1, max_length=4000, strip_whitespace=True), AfterValidator(no_nul)
    ]
    options: Annotated[tuple[Option, ...], Field(max_length=20)] = ()


class QuestionView(View):
    """A question, and its answer once there is one."""

    id: UUID
    work_item_id: UUID
    words: str
    options: list[str]
    answer: str | None
    answered_by: str | None
    created_at: datetime
    answered_at: datetime | None

    @classmethod
    def of(cls, row: QuestionRow) -> QuestionView:
        """A row."""
        return cls.model_validate(row, from_attributes=True)


async def ask(session: AsyncSession, caller: AgentCaller, new: NewQuestion, idempotency_key: str) -> QuestionView:
    """Ask whoever asked for the work; the same key gives the same question.

    Raises:
        Forbidden: The caller has no live run; `code` says why.
        IdempotencyMismatch: The key was used for another question.
        Conflict: The work item has asked as many questions as its policy allows actions.
    """
    if not (1 <= len(idempotency_key) <= 200 and idempotency_key.isascii() and idempotency_key.isprintable()):
        raise invalid("Idempotency-Key", "1 to 200 printable ASCII characters")
    standing = await agents.lock_standing(session, caller)
    item = agents.item_of(standing)
    known = await rows.question_by_key(session, item.tenant_id, item.id, idempotency_key)
    if known is not None:
        if (known.words, known.options) != (new.words, list(new.options)):
            raise IdempotencyMismatch(f"this idempotency key made question {known.id}", question_id=str(known.id))
        return QuestionView.of(known)
    policy = await policies.pinned(session, item.tenant_id, item.policy_version_id)
    if len(await rows.questions_of(session, item.id)) >= policy.actions.most_per_item:
        raise Conflict(f"this work item has asked {policy.actions.most_per_item} questions; that is the most")
    row = QuestionRow(
        tenant_id=item.tenant_id,
        id=new_id(),
        work_item_id=item.id,
        run_id=agents.run_of(standing).id,
        idempotency_key=idempotency_key,
        words=new.words,
        options=list(new.options),
        created_at=await tenant_rows.database_now(session),
    )
    session.add(row)
    await session.flush()
    await _tell(session, standing.principal, row, "question.asked", f"{standing.assistant.slug} asks: {new.words}")
    return QuestionView.of(row)


async def read_own(session: AsyncSession, caller: AgentCaller, question_id: UUID) -> QuestionView:
    """A question of the agent's own work item.

    Raises:
        NotFound: There is none.
    """
    row = await rows.question(session, caller.work_item_id, question_id) if caller.work_item_id else None
    if row is None or row.tenant_id != caller.tenant_id:
        raise NotFound(f"there is no question {question_id}")
    return QuestionView.of(row)


async def of_item(session: AsyncSession, work_item_id: UUID) -> list[QuestionView]:
    """The questions of an item that the session sees.

    Raises:
        NotFound: It sees no such item.
    """
    if await item_rows.get(session, work_item_id) is None:
        raise NotFound(f"there is no work item {work_item_id}")
    return [QuestionView.of(row) for row in await rows.questions_of(session, work_item_id)]


async def answer(
    session: AsyncSession, principal: Principal, work_item_id: UUID, question_id: UUID, words: str
) -> QuestionView:
    """Answer a question, once. The item's own tenant must be bound.

    Raises:
        NotFound: Not a question of an item of the bound tenant.
        Forbidden: It is for the requester, the assistant's owner or a tenant admin to answer.
        InvalidInput: It is none of the options.
        Conflict: It is answered already, or the work item has ended.
    """
    item = await lifecycle.lock_work_item(session, work_item_id)
    row = await rows.question(session, work_item_id, question_id)
    if row is None:
        raise NotFound(f"there is no question {question_id}")
    await _may_answer(session, principal, item)
    if row.options and words not in row.options:
        raise invalid("answer", f"is one of {', '.join(row.options)}")
    if row.answer is not None:
        raise Conflict(f"{row.answered_by} has answered already", current=row.answer)
    if WorkItemStatus(item.status).is_final:
        raise Conflict(f"the work item is {item.status}; nobody waits for an answer", status_now=item.status)
    row.answer, row.answered_by = words, principal.display_name or principal.username or principal.subject
    row.answered_at = await tenant_rows.database_now(session)
    session.add(row)
    await session.flush()
    await _tell(session, principal, row, "question.answered", f"{row.answered_by} answers: {words}")
    return QuestionView.of(row)


async def _may_answer(session: AsyncSession, principal: Principal, item: WorkItemRow) -> None:
    own = principal.tenant_id == item.tenant_id
    if own and (principal.id == item.requester_id or Role.TENANT_ADMIN in principal.roles):
        return
    assistant = await assistant_rows.get(session, item.assistant_id)
    if own and assistant is not None and assistant.owner_id == principal.id:
        return
    raise Forbidden("a question is answered by the requester, the assistant's owner or a tenant admin")


async def _tell(session: AsyncSession, principal: Principal, row: QuestionRow, kind: str, summary: str) -> None:
    audit.record(
        session,
        principal,
        kind=kind,
        subject=f"question/{row.id}",
        summary=summary[:500],
        work_item_id=row.work_item_id,
        data={"run_id": str(row.run_id)},
    )
    data = {"id": str(row.id), "words": row.words, "options": row.options, "answer": row.answer, "by": row.answered_by}
    await events.add(session, row.tenant_id, row.work_item_id, EventKind.QUESTION, data)
