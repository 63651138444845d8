"""What becomes of an action: permitted, staged, denied, expired, cancelled; and of its work item's status with it."""

from __future__ import annotations

from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import ActionStatus
from models.domain.approval import ApprovalStatus
from models.domain.events import EventKind
from models.domain.principal import Principal
from models.domain.work_item import WorkItemStatus
from models.repositories import actions as rows
from models.repositories import tenants as tenant_rows
from models.repositories import work_items as item_rows
from models.services import audit, effect_answers, events, lifecycle, waiting
from models.services.outbox import OutboxKind, enqueue
from models.tables.actions import ActionRow
from models.tables.work import ApprovalRow, WorkItemRow

OUTCOMES = {
    ApprovalStatus.APPROVED: ActionStatus.PERMITTED,
    ApprovalStatus.REJECTED: ActionStatus.DENIED,
    ApprovalStatus.EXPIRED: ActionStatus.EXPIRED,
    ApprovalStatus.CANCELLED: ActionStatus.CANCELLED,
}
_STANDS = frozenset({WorkItemStatus.SUCCEEDED, WorkItemStatus.FAILED})
"""Ends of an item after which what was permitted in its course is still performed."""


async def allow(
    session: AsyncSession, principal: Principal, row: ActionRow, status: ActionStatus, words: str, **data: Any
) -> None:
    """Permit a locked action (`permitted`, or `edited`); its effect, if it has one, is then performed once."""
    row.decided_at = await tenant_rows.database_now(session)
    if row.effect is None:
        row.ended_at = row.decided_at
    else:
        enqueue(session, row.tenant_id, OutboxKind.PERFORM_EFFECT, {"action_id": str(row.id)})
    await _write(session, principal, row, status, words, **data)


async def stage(session: AsyncSession, principal: Principal, row: ActionRow) -> None:
    """Collect a locked action's effect for the run's end."""
    assert row.work_item_id is not None, "only a run has an end to wait for"
    others = await rows.of_item(session, row.work_item_id)
    row.position = 1 + max((other.position or 0 for other in others), default=0)
    await _write(session, principal, row, ActionStatus.STAGED, "collected; approved with the others at the run's end")


async def end(session: AsyncSession, principal: Principal, row: ActionRow, status: ActionStatus, words: str) -> None:
    """End a locked action that is not to be performed."""
    row.decided_at = row.ended_at = await tenant_rows.database_now(session)
    await _write(session, principal, row, status, words)


async def approval_ended(
    session: AsyncSession,
    principal: Principal,
    approval: ApprovalRow,
    item: WorkItemRow | None,
    *,
    edited: bool = False,
) -> None:
    """Take an action's approval over, once it is final. Item and approval are locked."""
    assert approval.action_id is not None, "the approval is about an action"
    row = await rows.lock(session, approval.action_id)
    if row is not None and row.status == ActionStatus.UNKNOWN and row.approval_id == approval.id:
        await effect_answers.answered(session, principal, row, approval)
        return
    if row is None or row.status != ActionStatus.PENDING or row.approval_id != approval.id:
        return
    status = OUTCOMES[ApprovalStatus(approval.status)]
    if status is ActionStatus.PERMITTED:
        allowed = ActionStatus.EDITED if edited else status
        await allow(session, principal, row, allowed, approval.reason, approval_id=str(approval.id))
    else:
        await end(session, principal, row, status, approval.reason)
    if item is not None:
        await go_on(session, principal, item)


async def waits(session: AsyncSession, principal: Principal, item: WorkItemRow, words: str) -> None:
    """A locked item's agent has asked people: `running → awaiting_action`."""
    if item.status == WorkItemStatus.RUNNING:
        await lifecycle.move(session, principal, item, WorkItemStatus.AWAITING_ACTION, summary=words)


async def go_on(session: AsyncSession, principal: Principal, item: WorkItemRow) -> None:
    """Back to `running`, once none of a locked item's actions waits for people any more.

    A run that was suspended meanwhile goes on in another attempt: the item is `queued`.
    """
    if item.status != WorkItemStatus.AWAITING_ACTION:
        return
    if await rows.pending_of_item(session, item.tenant_id, item.id):
        return
    run = await item_rows.lock_open_run(session, item.id)
    if run is None or not await waiting.go_on(session, principal, item, run):
        await lifecycle.move(session, principal, item, WorkItemStatus.RUNNING, summary="The agent has its answers")


async def item_ended(session: AsyncSession, principal: Principal, item: WorkItemRow) -> None:
    """Close what a locked item that has just become final leaves open.

    Questions are closed however it ended: nobody is there to hear. What was permitted is performed all the same when
    the run came to an end of its own, and not when somebody stopped it.
    """
    stopped = WorkItemStatus(item.status) not in _STANDS
    words = f"the work item is {item.status}"
    for row in await rows.lock_unended(session, item.tenant_id, item.id):
        status = ActionStatus(row.status)
        if status is ActionStatus.PENDING or (stopped and status.is_allowed):
            await end(session, principal, row, ActionStatus.CANCELLED, words)
        elif status is ActionStatus.STAGED and item.status != WorkItemStatus.SUCCEEDED:
            await end(session, principal, row, ActionStatus.DISCARDED, words)


async def _write(
    session: AsyncSession, principal: Principal, row: ActionRow, status: ActionStatus, words: str, **data: Any
) -> None:
    row.status, row.words = status.value, words
    row.updated_at = await tenant_rows.database_now(session)
    session.add(row)
    audit.record(
        session,
        principal,
        kind=f"action.{status.value}",
        subject=f"action/{row.id}",
        summary=f"{row.kind} → {row.target} is {status.value}" + (f": {words}" if words else ""),
        work_item_id=row.work_item_id,
        data={"digest": row.digest, "level": row.level, "words": words} | data,
    )
    await session.flush()
    await tell(session, row)


async def tell(session: AsyncSession, row: ActionRow) -> None:
    """Tell the item's timeline how an action stands; one of an agent elsewhere has none."""
    if row.work_item_id is None:
        return
    data = {
        "id": str(row.id),
        "kind": row.kind,
        "target": row.target,
        "status": row.status,
        "level": row.level,
        "words": row.words,
        "approval_id": str(row.approval_id) if row.approval_id else None,
        "connector": row.effect["connector"] if row.effect else None,
    }
    await events.add(session, row.tenant_id, row.work_item_id, EventKind.ACTION, data)
