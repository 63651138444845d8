"""The one way in which a work item changes its status, and the one way in which it ends without a (further) run."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.errors import Conflict, NotFound
from models.domain.principal import Principal
from models.domain.run import RunStatus
from models.domain.work_item import FINAL, WorkItemStatus
from models.repositories import approvals as approval_rows
from models.repositories import assistants as assistant_rows
from models.repositories import tenants as tenant_rows
from models.repositories import work_items as rows
from models.rules.lifecycle import may_move
from models.services import audit
from models.services.outbox import OutboxKind, enqueue
from models.tables.execution import RunRow
from models.tables.work import WorkItemRow

KILL_REASONS = {WorkItemStatus.HALTED: "halted"}
"""Why a run is killed when its item ends so; `cancelled` otherwise."""
CLOSES = FINAL - {WorkItemStatus.SUCCEEDED}
"""What an item may be closed as without a run's word; INVARIANT: only a run that ended well makes it succeed."""


async def lock_work_item(session: AsyncSession, work_item_id: UUID) -> WorkItemRow:
    """Lock an item of the session's own tenant, read anew.

    INVARIANT: rows are locked in the order item → approval → run → reservation → budgets → audit head.

    Raises:
        NotFound: There is none, or it is another tenant's (also one that a holding may read).
    """
    item = await rows.lock(session, work_item_id)
    if item is None:
        raise NotFound(f"there is no work item {work_item_id}")
    return item


async def move(
    session: AsyncSession,
    principal: Principal,
    item: WorkItemRow,
    to: WorkItemStatus,
    *,
    summary: str,
    data: dict[str, Any] | None = None,
    reason: str = "",
) -> None:
    """Change the status of an item that the caller has locked, and audit `work_item.<to>`.

    A final status also stamps `ended_at`, counts in the assistant's record (succeeded, failed) and writes the
    webhooks' outbox entries, so whoever ends an item gets them all. Nothing else is published.

    Raises:
        Conflict: The rules know no way from the item's status to `to`.
    """
    current = WorkItemStatus(item.status)
    if not may_move(current, to):
        raise Conflict(f"a work item that is {current} cannot become {to}", current=current.value, wanted=to.value)
    now = await tenant_rows.database_now(session)
    item.status, item.status_seq, item.updated_at = to.value, item.status_seq + 1, now
    if reason:
        item.reason = reason
    audit.record(
        session,
        principal,
        kind=f"work_item.{to.value}",
        subject=f"work_item/{item.id}",
        summary=summary,
        work_item_id=item.id,
        data={"from": current.value, "status_seq": item.status_seq}
        | ({"reason": reason} if reason else {})
        | (data or {}),
    )
    if to.is_final:
        await _end(session, item, to, now)
    session.add(item)
    await session.flush()
    if to.is_final:
        await _close_questions(session, principal, item)


async def close(
    session: AsyncSession, principal: Principal, work_item_id: UUID, status: WorkItemStatus, reason: str
) -> WorkItemRow:
    """End an item without a (further) run: rejected, expired, cancelled, halted or failed.

    Closes its open approval, revokes unclaimed warrants, ends a run that is only queued and frees the hold, all in
    this transaction. Safe to repeat: an item that is final is answered as it stands. A run that lives (claimed or
    running) is told to end instead, and the item stays open: `settlement.finish` ends it when the run has, so that
    no hold is freed which is still being spent. So: look at the answer's status.

    Raises:
        Conflict: `status` is none of those; that work succeeded is said by its run alone.
    """
    if status not in CLOSES:
        raise Conflict(f"a work item is not closed as {status.value}")
    item = await lock_work_item(session, work_item_id)
    if WorkItemStatus(item.status).is_final:
        return item
    if status is WorkItemStatus.CANCELLED:
        reason = item.cancel_reason or reason
    await _cancel_approval(session, principal, item, reason or status.value)
    await rows.revoke_warrants(session, item.tenant_id, item.id)
    run = await rows.lock_open_run(session, item.id)
    if run is not None and run.status != RunStatus.QUEUED:
        kill_run(session, principal, run, KILL_REASONS.get(status, "cancelled"))
        await session.flush()
        return item
    if run is not None:
        run.status, run.outcome = RunStatus.ENDED.value, status.value
        run.ended_at = await tenant_rows.database_now(session)
        session.add(run)
    from models.services import settlement

    await settlement.end_hold(session, principal, item)
    await move(session, principal, item, status, summary=_words(item, status, reason), reason=reason)
    return item


async def _cancel_approval(session: AsyncSession, principal: Principal, item: WorkItemRow, reason: str) -> None:
    """Close the item's open questions: audited as any outcome is, and their workflows told."""
    # A staged set is decided after a run that ended well.
    sets = item.status != WorkItemStatus.SUCCEEDED
    for approval_id in await approval_rows.cancel_open(session, item.tenant_id, item.id, reason, sets=sets):
        audit.record(
            session,
            principal,
            kind="approval.cancelled",
            subject=f"approval/{approval_id}",
            summary=f"Nobody needs to decide any more: {reason}",
            work_item_id=item.id,
            data={"reason": reason},
        )
        enqueue(session, item.tenant_id, OutboxKind.SIGNAL_APPROVAL, {"approval_id": str(approval_id)})


async def _close_questions(session: AsyncSession, principal: Principal, item: WorkItemRow) -> None:
    """What an item that is final leaves open of its actions.

    No lock is waited for here: whoever else changes these rows has locked the item first.
    """
    from models.services import action_ends, action_set_ends

    await _cancel_approval(session, principal, item, f"the work item is {item.status}")
    await action_ends.item_ended(session, principal, item)
    await action_set_ends.item_ended(session, principal, item)


def kill_run(session: AsyncSession, principal: Principal, run: RunRow, reason: str) -> None:
    """Tell an open run to end: the row says so at once, the outbox carries it to the broker. The first reason stays."""
    if run.kill_reason is not None:
        return
    run.kill_reason = reason
    session.add(run)
    enqueue(session, run.tenant_id, OutboxKind.KILL_RUN, {"run_id": str(run.id), "reason": reason})
    audit.record(
        session,
        principal,
        kind="run.kill_requested",
        subject=f"run/{run.id}",
        summary=f"The run is to end: {reason}",
        work_item_id=run.work_item_id,
        data={"reason": reason, "attempt": run.attempt},
    )


async def _end(session: AsyncSession, item: WorkItemRow, to: WorkItemStatus, now: datetime) -> None:
    item.ended_at = now
    if to in (WorkItemStatus.SUCCEEDED, WorkItemStatus.FAILED):
        await assistant_rows.count_end(
            session, item.tenant_id, item.assistant_id, succeeded=to is WorkItemStatus.SUCCEEDED
        )
    event = f"work_item.{to.value}"
    for hook in await rows.webhooks_for(session, item.tenant_id, event):
        payload = {
            "event": event,
            "webhook_id": str(hook.id),
            "work_item_id": str(item.id),
            "status": to.value,
        }
        enqueue(session, item.tenant_id, OutboxKind.WEBHOOK, payload)


def _words(item: WorkItemRow, status: WorkItemStatus, reason: str) -> str:
    return f"“{item.title}” is {status.value}" + (f": {reason}" if reason else "")
