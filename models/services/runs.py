"""Queueing a run, asking for its end, giving an attempt up."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.errors import Conflict
from models.domain.principal import Principal
from models.domain.run import RunStatus
from models.domain.work_item import WorkItemStatus
from models.repositories import assistants as assistant_rows
from models.repositories import runs as rows
from models.repositories import tenants as tenant_rows
from models.repositories import work_items as item_rows
from models.services import audit, lifecycle
from models.services.approved import missing_approval
from models.services.halts import active_halt
from models.services.outbox import OutboxKind, enqueue
from models.tables.execution import RunRow
from models.tables.work import WorkItemRow
from sandbox.link.messages import KillReason
from sandbox.spec import RunOutcome, RunResult

SIGNAL_AFTER_END = timedelta(seconds=20)
"""The follower brings a run's end at once; a signal that comes while that is settled makes Temporal do it twice.

This one is for the item whose follower, or whose placing, was lost."""
_HAS_A_RUN = frozenset({WorkItemStatus.QUEUED, WorkItemStatus.RUNNING, WorkItemStatus.AWAITING_ACTION})
MAX_ATTEMPTS = 10
"""How often one run is claimed at most; what dies that often would die for ever."""


async def queue_run(session: AsyncSession, principal: Principal, work_item_id: UUID) -> RunRow:
    """Move the item to `queued` and make its run's row (id = `spec.run_id`); repeatable.

    Raises:
        NotFound: There is no such item.
        Conflict: The item is final, or its level needs an approval that it does not have.
    """
    item = await lifecycle.lock_work_item(session, work_item_id)
    run_id = UUID(item.spec["run_id"])
    run = await rows.lock(session, run_id)
    if run is not None and item.status in _HAS_A_RUN:
        return run
    missing = await missing_approval(session, item)
    if missing is not None:
        raise Conflict(f"the work item may not be queued: {missing}")
    await lifecycle.move(session, principal, item, WorkItemStatus.QUEUED, summary="Waits for a free place")
    await rows.insert_if_new(session, item.tenant_id, run_id, item.id)
    run = await rows.lock(session, run_id)
    assert run is not None, "it was inserted, or is there"
    return run


async def request_kill(session: AsyncSession, principal: Principal, work_item_id: UUID, reason: KillReason) -> bool:
    """Write on the item's live run that it must end, and have its broker told; True if there is such a run.

    The first reason stands. A run that is only queued is not touched: closing the item ends it.
    """
    await lifecycle.lock_work_item(session, work_item_id)
    run = await item_rows.lock_open_run(session, work_item_id)
    if run is None or run.status == RunStatus.QUEUED:
        return False
    lifecycle.kill_run(session, principal, run, reason.value)
    await session.flush()
    return True


def is_held_by(run: RunRow, runtime_id: UUID, attempt: int) -> bool:
    """Whether exactly this runtime holds exactly this attempt. INVARIANT: no report of a runtime counts otherwise."""
    return run.status in rows.LIVE and run.runtime_id == runtime_id and run.attempt == attempt


async def end_run(
    session: AsyncSession, principal: Principal, item: WorkItemRow, run: RunRow, result: RunResult
) -> None:
    """Write how the run ended, and have the workflow told. Both rows are locked."""
    run.status, run.outcome = RunStatus.ENDED.value, result.outcome.value
    run.result = result.model_dump(mode="json")
    run.ended_at = await tenant_rows.database_now(session)
    run.lease_until = None
    session.add(run)
    ran = f", {result.wall_seconds:.1f} s" if result.wall_seconds else ""
    audit.record(
        session,
        principal,
        kind="run.ended",
        subject=f"run/{run.id}",
        summary=f"Attempt {run.attempt} ended: {result.outcome.value.replace('_', ' ')}{ran}",
        work_item_id=item.id,
        data={
            "attempt": run.attempt,
            "outcome": result.outcome.value,
            "exit_code": result.exit_code,
            "detail": result.detail[:500],
            "runtime_id": str(run.runtime_id),
            "simulated": result.simulated,
        },
    )
    payload = {"work_item_id": str(item.id)}
    enqueue(session, item.tenant_id, OutboxKind.SIGNAL_WORK_ITEM, payload, delay=SIGNAL_AFTER_END)
    await session.flush()


async def give_up(
    session: AsyncSession, principal: Principal, item: WorkItemRow, run: RunRow, result: RunResult
) -> bool:
    """An attempt came to nothing: open the run for another one, or end it; True: opened again.

    A run that never started may always be had again; one that may have started only where its assistant says so.
    What was to be killed is not started again. INVARIANT: what was seen to start is not believed never to have.
    """
    if result.outcome is RunOutcome.NOT_STARTED and run.started_at is not None:
        result = result.model_copy(update={"outcome": RunOutcome.RUNTIME_GONE})
    if run.kill_reason is None and item.cancel_requested_at is None and run.attempt < MAX_ATTEMPTS:
        assistant = await assistant_rows.get(session, item.assistant_id)
        restartable = assistant is not None and assistant.restartable
        halt = await active_halt(session, item.tenant_id, item.assistant_id)
        killed = halt is not None and halt.mode == "kill" and result.outcome is not RunOutcome.NOT_STARTED
        if not killed and (restartable or result.outcome is RunOutcome.NOT_STARTED):
            await _open_again(session, principal, item, run, result)
            return True
    await end_run(session, principal, item, run, _as_killed(run, item, result))
    return False


def _as_killed(run: RunRow, item: WorkItemRow, result: RunResult) -> RunResult:
    reason = run.kill_reason or ("cancelled" if item.cancel_requested_at is not None else None)
    if reason in (KillReason.CANCELLED, KillReason.HALTED):
        return result.model_copy(update={"outcome": RunOutcome(reason)})
    return result


async def _lost_seconds(session: AsyncSession, run: RunRow, started_at: datetime, result: RunResult) -> int:
    """How long an attempt lived that came to nothing: it is paid for too. Unknown: until its lease was over."""
    if result.ended_at is not None:
        return math.ceil(result.wall_seconds)
    now = await tenant_rows.database_now(session)
    return max(0, math.ceil((min(now, run.lease_until or now) - started_at).total_seconds()))


async def _open_again(
    session: AsyncSession, principal: Principal, item: WorkItemRow, run: RunRow, result: RunResult
) -> None:
    runtime_id = run.runtime_id
    if run.started_at is not None:
        run.lost_seconds += await _lost_seconds(session, run, run.started_at, result)
    run.status = RunStatus.QUEUED.value
    run.runtime_id = run.broker_id = run.warrant_id = None
    run.lease_until = run.claimed_at = run.placed_at = run.started_at = run.waiting = None
    session.add(run)
    words = f"Attempt {run.attempt} came to nothing ({result.outcome.value.replace('_', ' ')}); it may be tried again"
    data = {
        "attempt": run.attempt,
        "outcome": result.outcome.value,
        "runtime_id": str(runtime_id),
        "detail": result.detail,
    }
    await lifecycle.move(session, principal, item, WorkItemStatus.QUEUED, summary=words, data=data)
    enqueue(session, item.tenant_id, OutboxKind.SIGNAL_WORK_ITEM, {"work_item_id": str(item.id)})
    await session.flush()
