"""What becomes of a staged set: decided, committed, stopped, discarded; and of its members with it."""

from __future__ import annotations

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import ActionStatus
from models.domain.approval import ApprovalStatus
from models.domain.principal import Principal
from models.repositories import actions as action_rows
from models.repositories import effects as rows
from models.repositories import tenants as tenant_rows
from models.services import action_ends, audit
from models.tables.actions import ActionSetRow
from models.tables.work import ApprovalRow, WorkItemRow

_DECIDED = {
    ApprovalStatus.APPROVED: "approved",
    ApprovalStatus.REJECTED: "denied",
    ApprovalStatus.EXPIRED: "expired",
    ApprovalStatus.CANCELLED: "discarded",
}


async def approval_ended(
    session: AsyncSession, principal: Principal, approval: ApprovalRow, item: WorkItemRow | None
) -> None:
    """Take the answer over into the set. Item and approval are locked."""
    assert approval.action_set_id is not None, "the approval is about a set"
    found = await rows.lock_set(session, approval.tenant_id, approval.action_set_id)
    if found is None or found.status != "pending" or found.digest != approval.subject_digest:
        return
    status = _DECIDED[ApprovalStatus(approval.status)]
    if status == "approved":
        await write(session, principal, found, status, approval.reason)
    else:
        await stop(session, principal, found, status, approval.reason or status)
    if item is not None:
        await action_ends.go_on(session, principal, item)


async def stop(session: AsyncSession, principal: Principal, found: ActionSetRow, status: str, why: str) -> int:
    """End a locked set with its rest untouched: what was not begun is discarded; answers how many that were.

    What is under way comes to its own end.
    """
    discarded = 0
    for row in await action_rows.lock_unended(session, found.tenant_id, found.work_item_id):
        if row.set_id == found.id and row.status == ActionStatus.STAGED:
            await action_ends.end(session, principal, row, ActionStatus.DISCARDED, why)
            discarded += 1
    await write(session, principal, found, status, why)
    return discarded


async def discard_all(session: AsyncSession, principal: Principal, item: WorkItemRow, why: str) -> None:
    """Nothing more of what a locked item has staged is performed: its set is ended, and what is in none discarded."""
    found = await rows.set_of_item(session, item.tenant_id, item.id)
    if found is not None and found.ended_at is None:
        await stop(session, principal, found, "discarded" if found.status == "pending" else "stopped", why)
    for row in await action_rows.lock_unended(session, item.tenant_id, item.id):
        if row.status == ActionStatus.STAGED:
            await action_ends.end(session, principal, row, ActionStatus.DISCARDED, why)


async def write(session: AsyncSession, principal: Principal, found: ActionSetRow, status: str, reason: str) -> None:
    """Change a locked set's status, and audit it."""
    found.status, found.reason = status, reason
    if status not in ("pending", "approved"):
        found.ended_at = await tenant_rows.database_now(session)
    session.add(found)
    audit.record(
        session,
        principal,
        kind=f"action_set.{status}",
        subject=f"action_set/{found.id}",
        summary=f"The staged effects are {status}" + (f": {reason}" if reason else ""),
        work_item_id=found.work_item_id,
        data={"digest": found.digest, "level": found.level, "reason": reason},
    )
    await session.flush()


async def item_ended(session: AsyncSession, principal: Principal, item: WorkItemRow) -> None:
    """Close the set of a locked item that has just become final; its members are closed as all its actions are."""
    found = await rows.set_of_item(session, item.tenant_id, item.id)
    if found is not None and found.ended_at is None:
        status = "discarded" if found.status == "pending" else "stopped"
        await write(session, principal, found, status, f"the work item is {item.status}")
