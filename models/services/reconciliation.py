"""Mending one row that Temporal and PostgreSQL disagree about. PostgreSQL is right about what is; it settles."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.principal import Principal
from models.domain.run import RunStatus
from models.domain.work_item import WorkItemStatus
from models.repositories import runs as run_rows
from models.repositories import work_items as item_rows
from models.services import action_set_ends, audit, leases, lifecycle, settlement


class Settled(StrEnum):
    """What came of settling an item whose workflow is closed."""

    ENDED = "ended"
    KILLING = "killing"
    """Its run lives, and was told to end; the next round settles it."""
    NOTHING = "nothing"
    """It had ended meanwhile."""


async def settle_without_workflow(
    session: AsyncSession, principal: Principal, work_item_id: UUID, workflow_state: str
) -> Settled:
    """End an item whose workflow was terminated or has failed: `halted`, or as its run has ended.

    Its approval is closed, its run killed and its hold settled, as by every end.
    """
    item = await lifecycle.lock_work_item(session, work_item_id)
    if WorkItemStatus(item.status).is_final:
        return Settled.NOTHING
    run = await item_rows.latest_run(session, item.id)
    if run is not None and run.status in (RunStatus.CLAIMED, RunStatus.RUNNING):
        await leases.end_lost(session, principal, run.id, run.attempt)
        run = await run_rows.lock(session, run.id)
    reason = f"its workflow is {workflow_state} without having ended it"
    known = run is not None and run.kill_reason is not None
    if run is not None and run.status == RunStatus.ENDED and item.status != WorkItemStatus.QUEUED:
        await action_set_ends.discard_all(session, principal, item, reason)
        await settlement.finish(session, principal, item.id)
    else:
        await lifecycle.close(session, principal, item.id, WorkItemStatus.HALTED, reason)
    if not known:
        audit.record(
            session,
            principal,
            kind="reconcile.terminated",
            subject=f"work_item/{item.id}",
            summary=f"The workflow of “{item.title}” is {workflow_state}; the work item is settled without it",
            work_item_id=item.id,
            data={"workflow": workflow_state, "status": item.status},
        )
    return Settled.ENDED if WorkItemStatus(item.status).is_final else Settled.KILLING
