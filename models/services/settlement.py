"""The end of a work item whose run has ended: its cost, its outcome, its record."""

from __future__ import annotations

from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.money import format_usd
from models.domain.policy import Policy
from models.domain.principal import Principal
from models.domain.run import RunStatus
from models.domain.work_item import WorkItemStatus
from models.repositories import work_items as rows
from models.rules import cost
from models.services import action_set_ends, lifecycle, money, policies, staged
from models.tables.execution import RunRow
from models.tables.work import WorkItemRow
from sandbox.spec import RunOutcome, RunResult, RunSpec

STATUS_OF = {
    RunOutcome.SUCCEEDED: WorkItemStatus.SUCCEEDED,
    RunOutcome.CANCELLED: WorkItemStatus.CANCELLED,
    RunOutcome.HALTED: WorkItemStatus.HALTED,
}
"""What a run's outcome makes of its item; every other one is a failure."""


async def finish(session: AsyncSession, principal: Principal, work_item_id: UUID) -> WorkItemRow:
    """Settle the cost, take the run's outcome over and close the item; repeatable.

    While there is no ended run, or effects that it staged are to be committed, the item is answered as it stands: a
    workflow that asks too early reads on, and must not fail for it, since a failure would end a run that lives.

    Raises:
        NotFound: There is no such item.
    """
    item = await lifecycle.lock_work_item(session, work_item_id)
    if WorkItemStatus(item.status).is_final:
        return item
    run = await rows.latest_run(session, item.id)
    if run is None or run.status != RunStatus.ENDED:
        return item
    outcome = RunOutcome(run.outcome or RunOutcome.RUNTIME_GONE)
    result = RunResult.model_validate(run.result) if run.result else RunResult(outcome=outcome)
    if await staged.open_members(session, item, run):
        return item  # its staged effects are committed first (`staged.advance`)
    status, why = await _verdict(session, principal, item, outcome, result)
    charged = await _settle(session, principal, item, run, result)
    item.outcome = outcome.value
    item.result = result.model_dump(mode="json")
    await lifecycle.move(
        session,
        principal,
        item,
        status,
        summary=f"“{item.title}”: {_words(outcome, result)}; cost {format_usd(charged)}",
        reason=why,
        data={
            "outcome": outcome.value,
            "exit_code": result.exit_code,
            "cost_nano": str(charged),
            "artifacts": [f"{artifact.path} sha256:{artifact.sha256}" for artifact in result.artifacts],
        },
    )
    return item


async def _verdict(
    session: AsyncSession, principal: Principal, item: WorkItemRow, outcome: RunOutcome, result: RunResult
) -> tuple[WorkItemStatus, str]:
    """What run and staged effects make of the item, and why; a run that did not succeed discards what it staged."""
    if outcome is RunOutcome.SUCCEEDED:
        return await staged.verdict(session, item)
    await action_set_ends.discard_all(session, principal, item, f"the run ended as {_words(outcome, result)}")
    return STATUS_OF.get(outcome, WorkItemStatus.FAILED), _reason(item, outcome, result)


async def end_hold(session: AsyncSession, principal: Principal, item: WorkItemRow) -> None:
    """Free the hold of a locked item that ends without a further run; attempts that it had before are paid."""
    run = await rows.latest_run(session, item.id)
    if run is None or (run.started_at is None and run.lost_seconds == 0):
        await money.release(session, principal, item.id)
        return
    result = RunResult.model_validate(run.result) if run.result else RunResult(outcome=RunOutcome.NOT_STARTED)
    await _settle(session, principal, item, run, result)


async def _settle(
    session: AsyncSession, principal: Principal, item: WorkItemRow, run: RunRow, result: RunResult
) -> int:
    policy = await policies.pinned(session, item.tenant_id, item.policy_version_id)
    detail = {
        "run_id": str(run.id),
        "attempt": run.attempt,
        "wall_seconds": str(result.wall_seconds),
        "lost_seconds": run.lost_seconds,
    }
    return await money.settle(session, principal, item.id, _cost(policy, item, run, result), "sandbox_time", detail)


def _cost(policy: Policy, item: WorkItemRow, run: RunRow, result: RunResult) -> int:
    """The price of the sandbox's time, over all attempts; a run that never started is free.

    An attempt that went silent, also one that was to be killed, is charged for its whole limit: what it used cannot
    be known, and a bill that guesses low would let a lost machine run for nothing.
    """
    limit = RunSpec.model_validate(item.spec).limits.wall_seconds
    started = run.started_at is not None or result.started_at is not None
    silent = started and result.ended_at is None
    last = limit if silent else max(0.0, result.wall_seconds)
    if not started and run.lost_seconds == 0:
        return 0
    return cost.actual(policy.prices, run.lost_seconds + (last if started else 0), limit)


def _words(outcome: RunOutcome, result: RunResult) -> str:
    exit_code = f" with exit code {result.exit_code}" if outcome is RunOutcome.FAILED_EXIT else ""
    return outcome.value.replace("_", " ") + exit_code


def _reason(item: WorkItemRow, outcome: RunOutcome, result: RunResult) -> str:
    match outcome:
        case RunOutcome.SUCCEEDED:
            return ""
        case RunOutcome.CANCELLED:
            return item.cancel_reason or "cancelled"
        case _:
            return result.detail or _words(outcome, result)
