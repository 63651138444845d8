"""Runs whose agents only wait for people: paused and resumed, or ended and gone on with in another attempt.

The row says how a run waits; the broker brings that to its runtime, and says it again until the runtime agrees. A
message that is lost or forged changes nothing of what the row says.
"""

from __future__ import annotations

import math
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.principal import Principal
from models.domain.run import RunStatus
from models.domain.work_item import WorkItemStatus
from models.repositories import runs as run_rows
from models.repositories import waiting as rows
from models.rules.waiting import Waiting, WaitingStep, next_step
from models.services import audit, lifecycle, policies
from models.services.continuations import made_of
from models.services.outbox import OutboxKind, enqueue
from models.services.runs import MAX_ATTEMPTS
from models.tables.execution import RunRow
from models.tables.work import WorkItemRow
from sandbox.link.messages import RunRef
from sandbox.spec import RunResult

_WORDS = {
    WaitingStep.PAUSE: ("run.paused", "Attempt {} is paused: its agent only waits for people"),
    WaitingStep.RESUME: ("run.resumed", "Attempt {} goes on"),
    WaitingStep.SUSPEND: ("run.suspending", "Attempt {} is to end; the next one goes on with what people decide"),
}
_BECOMES = {
    WaitingStep.PAUSE: Waiting.PAUSED.value,
    WaitingStep.RESUME: None,
    WaitingStep.SUSPEND: Waiting.SUSPENDED.value,
}


async def due(session: AsyncSession, tenant_id: UUID) -> tuple[dict[RunRef, Waiting], list[tuple[UUID, UUID]]]:
    """How the tenant's live runs wait by their rows, and those for which something is to be done: (item, run)."""
    standing: dict[RunRef, Waiting] = {}
    changes: list[tuple[UUID, UUID]] = []
    for row in await rows.live(session, tenant_id):
        waiting = Waiting(row.waiting) if row.waiting else None
        if waiting is not None:
            standing[RunRef(run_id=row.id, attempt=row.attempt)] = waiting
        policy = await policies.pinned(session, tenant_id, row.policy_version_id)
        waited = None if row.waited is None else float(row.waited)
        if next_step(policy.actions, waiting, waited, may_start_again=_may_start_again(row.attempt)) is not None:
            changes.append((row.work_item_id, row.id))
    return standing, changes


async def step(session: AsyncSession, principal: Principal, work_item_id: UUID, run_id: UUID) -> WaitingStep | None:
    """Write what is to be done with a run, seen again under its locks; None: nothing any more."""
    item = await lifecycle.lock_work_item(session, work_item_id)
    run = await run_rows.lock(session, run_id)
    if run is None or run.status != RunStatus.RUNNING or run.kill_reason is not None:
        return None
    policy = await policies.pinned(session, item.tenant_id, item.policy_version_id)
    waiting = Waiting(run.waiting) if run.waiting else None
    waited = await rows.waited(session, item.tenant_id, run_id)
    what = next_step(policy.actions, waiting, waited, may_start_again=_may_start_again(run.attempt))
    if what is None:
        return None
    run.waiting = _BECOMES[what]
    session.add(run)
    kind, words = _WORDS[what]
    audit.record(
        session,
        principal,
        kind=kind,
        subject=f"run/{run.id}",
        summary=words.format(run.attempt),
        work_item_id=item.id,
        data={"attempt": run.attempt, "waited_seconds": math.floor(waited or 0)},
    )
    await session.flush()
    return what


async def suspended(
    session: AsyncSession, principal: Principal, item: WorkItemRow, run: RunRow, result: RunResult
) -> None:
    """The runtime has ended an attempt that was to be suspended. Item and run are locked, and nothing kills the run.

    The run is open again, but for nobody to claim while its item waits for people; where they have decided meanwhile,
    it goes on at once.
    """
    run.lost_seconds += math.ceil(result.wall_seconds)
    run.status = RunStatus.QUEUED.value
    run.runtime_id = run.broker_id = run.warrant_id = None
    run.lease_until = run.claimed_at = run.placed_at = run.started_at = None
    session.add(run)
    audit.record(
        session,
        principal,
        kind="run.suspended",
        subject=f"run/{run.id}",
        summary=f"Attempt {run.attempt} has ended until people have decided",
        work_item_id=item.id,
        data={"attempt": run.attempt, "wall_seconds": str(result.wall_seconds)},
    )
    await session.flush()
    await go_on(session, principal, item, run)


async def go_on(session: AsyncSession, principal: Principal, item: WorkItemRow, run: RunRow) -> bool:
    """Queue a suspended run again, if none of its questions is open; True: it is queued. Both rows are locked.

    Its next attempt finds the decisions, and what the agent saved, among its inputs.
    """
    if run.waiting != Waiting.SUSPENDED or run.status != RunStatus.QUEUED:
        return False
    asked = await rows.answers(session, item.tenant_id, run.id)
    if any(action.status == "pending" for action in asked):
        return False
    saved = await rows.saved_state(session, item.tenant_id, run.id)
    run.continuation = made_of(asked, saved).model_dump(mode="json")
    run.waiting = None
    session.add(run)
    if item.status != WorkItemStatus.QUEUED:
        words = "People have decided; the run goes on in another attempt"
        await lifecycle.move(session, principal, item, WorkItemStatus.QUEUED, summary=words)
    enqueue(session, item.tenant_id, OutboxKind.SIGNAL_WORK_ITEM, {"work_item_id": str(item.id)})
    await session.flush()
    return True


def _may_start_again(attempt: int) -> bool:
    """One attempt is kept for a machine that is lost."""
    return attempt < MAX_ATTEMPTS - 1
