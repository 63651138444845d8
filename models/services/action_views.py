"""Actions read: by their agent, by the people of its company, and in an approval's question."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import ActionStatus, AgentCaller
from models.domain.action_views import ActionAnswer, ActionView
from models.domain.errors import NotFound
from models.domain.risk import RiskFactor, RiskLevel
from models.repositories import actions as rows
from models.repositories import paging
from models.repositories import work_items as item_rows
from models.tables.actions import ActionRow

_SAYS_MORE = frozenset({ActionStatus.PENDING, ActionStatus.PERFORMING})
_AGAIN = "asked_again"


async def read_own(session: AsyncSession, caller: AgentCaller, action_id: UUID) -> ActionRow:
    """An action of the agent's own: of its work item, or of its assistant where it runs elsewhere.

    Raises:
        NotFound: There is none, or it is another's: the answer is the same.
    """
    row = await rows.get(session, action_id)
    if row is None or (row.tenant_id, row.assistant_id, row.work_item_id) != (
        caller.tenant_id,
        caller.assistant_id,
        caller.work_item_id,
    ):
        raise NotFound(f"there is no action {action_id}")
    return row


async def list_own(session: AsyncSession, caller: AgentCaller) -> list[ActionRow]:
    """The actions of the agent's work item, in the order in which they were asked for.

    Raises:
        NotFound: It has none: it runs elsewhere.
    """
    if caller.work_item_id is None:
        raise NotFound("an agent that runs elsewhere asks for each of its actions by its id")
    return await rows.of_item(session, caller.work_item_id)


async def read(session: AsyncSession, action_id: UUID) -> ActionView:
    """One action, for the people of its company or of its holding.

    Raises:
        NotFound: The session sees none.
    """
    row = await rows.get(session, action_id)
    if row is None:
        raise NotFound(f"there is no action {action_id}")
    return view_of(row)


async def of_item(session: AsyncSession, work_item_id: UUID) -> list[ActionView]:
    """The actions of a work item.

    Raises:
        NotFound: The session sees no such item.
    """
    if await item_rows.get(session, work_item_id) is None:
        raise NotFound(f"there is no work item {work_item_id}")
    return [view_of(row) for row in await rows.of_item(session, work_item_id)]


async def list_page(
    session: AsyncSession, assistant_id: UUID | None, status: ActionStatus | None, cursor: str | None, limit: int
) -> tuple[list[ActionView], str | None]:
    """Actions that the session sees, newest first, and the next cursor."""
    size = paging.page_size(limit)
    wanted = status.value if status is not None else None
    found, following = paging.cut(await rows.page(session, assistant_id, wanted, paging.after(cursor), size + 1), size)
    return [view_of(row) for row in found], following


def is_settled(row: ActionRow) -> bool:
    """Whether the agent has nothing more to wait for."""
    status = ActionStatus(row.status)
    return status not in _SAYS_MORE and not (status.is_allowed and row.effect is not None)


def answer_of(row: ActionRow, base: str = "/actions") -> ActionAnswer:
    """What the agent is told of a row."""
    return ActionAnswer(
        id=row.id,
        status=ActionStatus(row.status),
        level=RiskLevel(row.level),
        score=row.score,
        factors=_factors(row),
        reason=row.words,
        parameters=row.parameters,
        effect=row.effect,
        effect_result=None if row.status == ActionStatus.DENIED else row.result,
        approval_id=row.approval_id,
        wait_url=f"{base}/{row.id}?wait=25",
        settled=is_settled(row),
    )


def view_of(row: ActionRow) -> ActionView:
    """A row for people."""
    fields: dict[str, Any] = row.model_dump(include=set(ActionView.model_fields))
    fields |= {
        "why": row.reason,
        "factors": _factors(row),
        "asked_again": asked_again(row),
        "result": None if row.status == ActionStatus.DENIED else row.result,
    }
    return ActionView.model_validate(fields)


def asked_again(row: ActionRow) -> int:
    """How often a denied action was asked for again."""
    denied = row.status == ActionStatus.DENIED
    return int((row.result or {}).get(_AGAIN, 0)) if denied else 0


def count_again(row: ActionRow) -> int:
    """Count one more; a denied action has no other result."""
    row.result = {_AGAIN: asked_again(row) + 1}
    return asked_again(row)


def _factors(row: ActionRow) -> tuple[RiskFactor, ...]:
    return tuple(RiskFactor.model_validate(factor) for factor in row.factors)
