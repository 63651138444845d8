"""The life of one work item: what happens next, and when. What is so, it reads from PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

with workflow.unsafe.imports_passed_through():
    from activities import signatures as act  # stubs and value types: pure
    from models.domain.work_item import WorkItemStatus  # an enum that those values hold
    from workflows import options  # constants
    from workflows.details import AWAITED, attributes, work_item_details  # pure functions, no state
    from workflows.names import (  # constants and ids
        ASSISTANT,
        AWAITING,
        LOOK_AGAIN,
        RISK_LEVEL,
        STATUS,
        TENANT,
        WorkItemStart,  # the input's type: the client's and ours must be one
        work_item_workflow_id,
    )
    from workflows.stages import (  # no state; tests/architecture keeps clocks and chance out
        ApprovalStage,
        BudgetStage,
        RunStage,
    )
    from workflows.steps import OpIds, domain_error, record  # no state; likewise

_S = WorkItemStatus


@workflow.defn
class WorkItemWorkflow:
    """Carries a work item from its submission to its end.

    The row's status says which stage is next, so a reset, a new generation or a restart of anything goes on from
    where the item really is. Signals carry nothing; every stage reads again after each wait.
    """

    @workflow.init
    def __init__(self, given: WorkItemStart) -> None:
        self.given = given
        self.ops = OpIds(given.generation)
        self._look_again = False
        self._waits = 0
        self._quiet = 0
        self.place_failures = 0
        self._last_shown: tuple[str, ...] = ()

    @workflow.signal(name=LOOK_AGAIN)
    def look_again(self) -> None:
        """Something changed: read what PostgreSQL holds."""
        self._look_again = True

    @workflow.run
    async def run(self, given: WorkItemStart) -> act.WorkItemView:
        """Live until the item's row is final.

        A cancellation asked of Temporal is written to PostgreSQL like any other and ends the item by the same path;
        nothing that is under way is cut off in the middle.

        Raises:
            FailureError: A domain error, such as an item that does not exist, or one that has a workflow already.
            CancelledError: The item is closed, and the cancellation was asked of Temporal.
        """
        if workflow.info().workflow_id != work_item_workflow_id(given.tenant_id, given.work_item_id):
            raise ApplicationError("this workflow does not bear the item's id", type="forbidden", non_retryable=True)
        body = asyncio.create_task(self._live())
        cancelled: asyncio.CancelledError | None = None
        try:
            view = await asyncio.shield(body)
        except asyncio.CancelledError as error:
            cancelled = error
            note = act.CloseInput(
                tenant_id=given.tenant_id,
                work_item_id=given.work_item_id,
                status=_S.CANCELLED,
                reason="cancelled through Temporal",
                op_id=self.ops.next("note-cancel"),
            )
            await record(act.note_cancel, note, "Write the cancellation down")
            self.look_again()
            view = await body
        await workflow.wait_condition(workflow.all_handlers_finished)
        if cancelled is not None:
            raise cancelled
        return view

    async def _live(self) -> act.WorkItemView:
        view = await record(act.assess_work_item, self.item("assess"), "Assess the risk")
        while not view.status.is_final:
            self.show(view)
            before, waits = view, self._waits
            try:
                view = await self._stage(view)
            except FailureError as error:
                view = await self._close_for(error)
            if view == before and waits == self._waits:
                # A stage that neither waited nor moved the item: never a loop without a pause.
                await self.wait(self.until(None), "Nothing moved; look again")
                view = await self.read()
            if workflow.info().is_continue_as_new_suggested() and not view.status.is_final:
                await workflow.wait_condition(workflow.all_handlers_finished)
                workflow.continue_as_new(self.given.model_copy(update={"generation": self.given.generation + 1}))
        self.show(view)
        return view

    async def _stage(self, view: act.WorkItemView) -> act.WorkItemView:
        """The one table of what comes next."""
        if view.suspended:
            return await RunStage(self).rest(view)
        if view.status in (_S.RUNNING, _S.AWAITING_ACTION):
            return await RunStage(self).follow(view)
        if view.cancel_requested:
            return await self.close(_S.CANCELLED, view.reason or "cancelled")
        if view.status is _S.QUEUED:
            return await RunStage(self).start(view)
        if view.status is _S.AWAITING_APPROVAL:
            return await ApprovalStage(self).decide(view)
        return await BudgetStage(self).hold(view)

    async def _close_for(self, error: FailureError) -> act.WorkItemView:
        """End the item for a domain error that says so; what is not there cannot be ended."""
        cause = domain_error(error)
        if cause is None or cause.type == "not-found":
            raise error
        try:
            return await self.close(_S.FAILED, cause.message)
        except FailureError as refused:
            if domain_error(refused) is None:
                raise
            raise error from refused  # not from here to `failed`: the workflow fails, and reconcile settles the item

    # --- What the stages use ----------------------------------------------------------------------------------------

    def item(self, step: str) -> act.WorkItemInput:
        """Input of a step done to this item."""
        return act.WorkItemInput(
            tenant_id=self.given.tenant_id, work_item_id=self.given.work_item_id, op_id=self.ops.next(step)
        )

    async def read(self) -> act.WorkItemView:
        """The item as PostgreSQL holds it."""
        return await record(act.read_work_item, self.item("read"), "Read the work item")

    async def close(self, status: WorkItemStatus, reason: str) -> act.WorkItemView:
        """End the item, unless a run lives: that one is killed and must be followed to its end."""
        given = act.CloseInput(
            tenant_id=self.given.tenant_id,
            work_item_id=self.given.work_item_id,
            status=status,
            reason=reason,
            op_id=self.ops.next("close"),
        )
        return await record(act.close_work_item, given, f"Close as {status.value}")

    async def wait(self, at_most: timedelta, summary: str) -> None:
        """Until told to look again, or the time has passed; whoever waited reads afterwards."""
        self._quiet += 1
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._look_again,
                timeout=max(at_most, options.LOOK_AGAIN_AT_LEAST),
                timeout_summary=summary,
            )
            self._quiet = 0
        self._look_again = False
        self.waited()

    async def wait_for(self, handle: asyncio.Task[object]) -> None:
        """Until told to look again, or `handle` is done, which its own timeouts see to."""
        await workflow.wait_condition(lambda: self._look_again or handle.done())
        self._look_again = False

    def waited(self) -> None:
        """Note that time has passed, so that going on with an unchanged item is no loop without a pause."""
        self._waits += 1

    def until(self, moment: datetime | None) -> timedelta:
        """How long to wait for `moment`: the slow timer stands behind every wait."""
        slow = min(options.LOOK_AGAIN_FIRST * 2 ** min(self._quiet, 8), options.LOOK_AGAIN_MOST)
        # A moment that has passed and changed nothing is no reason to hurry.
        return slow if moment is None or moment <= workflow.now() else min(moment - workflow.now(), slow)

    def show(self, view: act.WorkItemView, details: str = "", waiting_for: str = "") -> None:
        """Bring search attributes (when they changed) and the live details up to date."""
        workflow.set_current_details(details or work_item_details(view, self.given.work_item_id, waiting_for))
        level = view.level.value if view.level else "none"
        awaiting = "nothing" if view.status.is_final else "halt" if view.held else AWAITED[view.status]
        shown = (view.assistant, level, view.status.value, awaiting)
        if shown == self._last_shown:
            return
        self._last_shown = shown
        attributes(
            TENANT.value_set(str(self.given.tenant_id)),
            ASSISTANT.value_set(view.assistant),
            RISK_LEVEL.value_set(level),
            STATUS.value_set(view.status.value),
            AWAITING.value_set(awaiting),
        )
