"""Every minute: compare what is open in PostgreSQL with what lives in Temporal, page by page, and mend what differs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import signatures as act  # stubs and value types: pure
    from workflows import options  # constants
    from workflows.names import ReconcileStart  # the input's type: the schedule's and ours must be one

Page = Callable[[act.ReconcileInput], Awaitable[act.ReconcileOutput]]


@workflow.defn
class ReconcileWorkflow:
    """Work items, then approvals, then effects, then money."""

    @workflow.run
    async def run(self, given: ReconcileStart) -> act.ReconcileOutput:
        """Answer what was seen and mended in all."""
        total = act.ReconcileOutput(seen=0)
        passes: tuple[tuple[Page, str], ...] = (
            (act.reconcile_work_items, "Work items"),
            (act.reconcile_approvals, "Approvals"),
            (act.reconcile_effects, "Effects"),
            (act.reconcile_money, "Reservations and audit partitions"),
        )
        for page, what in passes:
            total = _sum(total, await self._all_pages(page, given.page, what))
        return total

    async def _all_pages(self, page: Page, limit: int, what: str) -> act.ReconcileOutput:
        total = act.ReconcileOutput(seen=0)
        after: UUID | None = None
        for number in range(1, options.RECONCILE_MOST_PAGES + 1):
            answer = await workflow.execute_activity(
                page,
                act.ReconcileInput(after=after, limit=limit, run=workflow.info().run_id),
                start_to_close_timeout=options.RECONCILE_START_TO_CLOSE,
                retry_policy=options.RECONCILE_RETRY,
                summary=f"{what}, page {number}",
            )
            total, after = _sum(total, answer), answer.next_after
            if after is None:
                break
        return total


def _sum(one: act.ReconcileOutput, other: act.ReconcileOutput) -> act.ReconcileOutput:
    return act.ReconcileOutput(
        seen=one.seen + other.seen,
        started=one.started + other.started,
        settled=one.settled + other.settled,
        cancelled=one.cancelled + other.cancelled,
        released=one.released + other.released,
        failed=one.failed + other.failed,
    )
