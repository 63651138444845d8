"""The stages of a work item in which time passes: money, humans, the run, and the effects that it staged."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import (
    ActivityError,
    TimeoutType,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)
from temporalio.exceptions import TimeoutError as ActivityTimeout

with workflow.unsafe.imports_passed_through():
    from activities import signatures as act  # stubs and value types: pure
    from models.domain.approval import ApprovalStatus  # an enum that those values hold
    from models.domain.work_item import WorkItemStatus  # likewise
    from workflows import options  # constants
    from workflows.approval import ApprovalWorkflow  # a class to name
    from workflows.details import approval_details  # pure functions, no state
    from workflows.effect import EffectWorkflow  # a class to name
    from workflows.names import (  # the inputs' types must be one
        ApprovalStart,
        EffectStart,
        WorkItemStart,
        approval_workflow_id,  # constants and ids
        effect_workflow_id,
    )
    from workflows.steps import OpIds, record  # no state; likewise

_S = WorkItemStatus
_CLOSES_AS = {
    ApprovalStatus.REJECTED: _S.REJECTED,
    ApprovalStatus.EXPIRED: _S.EXPIRED,
    ApprovalStatus.CANCELLED: _S.CANCELLED,
}


class Flow(Protocol):
    """What a stage needs of the workflow that it is a part of."""

    given: WorkItemStart
    ops: OpIds
    place_failures: int

    def item(self, step: str) -> act.WorkItemInput:
        """Input of a step done to the item."""
        ...

    async def read(self) -> act.WorkItemView:
        """The item as PostgreSQL holds it."""
        ...

    async def close(self, status: WorkItemStatus, reason: str) -> act.WorkItemView:
        """End the item."""
        ...

    async def wait(self, at_most: timedelta, summary: str) -> None:
        """Until told, or the time has passed."""
        ...

    async def wait_for(self, handle: asyncio.Task[object]) -> None:
        """Until told, or the activity is done."""
        ...

    def waited(self) -> None:
        """Note that time has passed."""
        ...

    def until(self, moment: datetime | None) -> timedelta:
        """How long to wait for a moment."""
        ...

    def show(self, view: act.WorkItemView, details: str = "", waiting_for: str = "") -> None:
        """Bring the Web UI up to date."""
        ...


class BudgetStage:
    """Hold the worst case, or wait for money until the deadline."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    async def hold(self, view: act.WorkItemView) -> act.WorkItemView:
        """Reserve; then the humans, or straight to the queue. Without money: wait, and look again."""
        flow = self.flow
        answer = await record(act.reserve_budget, flow.item("reserve"), "Hold the worst case on every budget")
        if answer.held:
            if view.needs_approval:
                return await ApprovalStage(flow).decide(view)
            return await record(act.queue_run, flow.item("queue"), "Queue the run")
        if answer.deadline is not None and workflow.now() >= answer.deadline:
            return await flow.close(_S.EXPIRED, f"no budget by the deadline: {answer.words}")
        flow.show(view.model_copy(update={"status": _S.AWAITING_BUDGET}), waiting_for=answer.words or "budget")
        moments = [
            moment for moment in (answer.retry_at, answer.deadline) if moment is not None and moment > workflow.now()
        ]
        await flow.wait(flow.until(min(moments, default=None)), "No budget: look again")
        return await flow.read()


class ApprovalStage:
    """Open the question, let a child carry its time, and take the outcome from PostgreSQL."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    async def decide(self, view: act.WorkItemView) -> act.WorkItemView:
        """Wait for the outcome; INVARIANT: it is read, never taken from the child or from a signal."""
        flow = self.flow
        opened = await record(act.open_approval, flow.item("open-approval"), "Ask for approval")
        if opened.status is ApprovalStatus.PENDING:
            await self._start_child(opened)
        while True:
            outcome = await record(act.read_approval, self._approval(opened, "read-approval"), "Read the outcome")
            if outcome.status is ApprovalStatus.APPROVED:
                return await record(act.queue_run, flow.item("queue"), "Queue the run")
            if outcome.status is not ApprovalStatus.PENDING:
                words = outcome.reason or f"approval {outcome.status.value}"
                return await flow.close(_CLOSES_AS[outcome.status], words)
            view = await flow.read()
            if view.status.is_final or view.cancel_requested:
                return view
            flow.show(view, approval_details(view, opened, outcome.votes))
            await flow.wait(flow.until(opened.expires_at + options.EXPIRY_GRACE), f"Until a decision: {opened.who}")
            if workflow.now() >= opened.expires_at + options.PARENT_EXPIRY_GRACE:
                await record(act.expire_approval, self._approval(opened, "expire-approval"), "Expire the approval")
            if workflow.info().is_continue_as_new_suggested():
                return await flow.read()

    def _approval(self, opened: act.ApprovalOpened, step: str) -> act.ApprovalInput:
        flow = self.flow
        return act.ApprovalInput(
            tenant_id=flow.given.tenant_id, approval_id=opened.approval_id, op_id=flow.ops.next(step)
        )

    async def _start_child(self, opened: act.ApprovalOpened) -> None:
        given = self.flow.given
        # Already started is success: after a reset of the parent the old child lives on.
        with contextlib.suppress(WorkflowAlreadyStartedError):
            await workflow.start_child_workflow(
                ApprovalWorkflow.run,
                ApprovalStart(
                    tenant_id=given.tenant_id, work_item_id=given.work_item_id, approval_id=opened.approval_id
                ),
                id=approval_workflow_id(opened.approval_id),
                parent_close_policy=workflow.ParentClosePolicy.REQUEST_CANCEL,
                cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
                # One that was terminated may be had again: it carries time only.
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
                static_summary=f"Approval by {opened.who}",
            )


class RunStage:
    """A warrant, a place, and following the attempt to its end."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    async def start(self, view: act.WorkItemView) -> act.WorkItemView:
        """Ask for a warrant and act on the answer."""
        flow = self.flow
        warrant = await record(act.mint_warrant, flow.item("mint"), "Mint a warrant")
        if warrant.state is act.WarrantState.MINTED and warrant.run_id is not None:
            run = self._run(warrant.run_id, warrant.attempt, "place")
            return await self._place(view, run, warrant.claim_before)
        if warrant.state is act.WarrantState.BUDGET:
            return await BudgetStage(flow).hold(view)
        if warrant.state is act.WarrantState.HALTED:
            flow.show(view.model_copy(update={"held": True}), waiting_for=warrant.words or "the end of a halt")
            await flow.wait(flow.until(None), "Held by a halt: look again")
            return await flow.read()
        return await self._finish()

    async def follow(self, view: act.WorkItemView) -> act.WorkItemView:
        """Attach to a run that is claimed, and go on with what became of it."""
        if view.run_id is None:
            return await self._finish()
        return await self._follow(view, self._run(view.run_id, view.attempt, "follow"))

    async def rest(self, view: act.WorkItemView) -> act.WorkItemView:
        """Nothing runs until people have decided about an action; days may pass."""
        flow = self.flow
        if view.cancel_requested:
            return await flow.close(_S.CANCELLED, view.reason or "cancelled")
        flow.show(view, waiting_for="people, who decide about an action")
        await flow.wait(flow.until(None), "Suspended: look again")
        return await flow.read()

    def _run(self, run_id: UUID, attempt: int, step: str) -> act.RunInput:
        given = self.flow.given
        return act.RunInput(
            tenant_id=given.tenant_id,
            work_item_id=given.work_item_id,
            run_id=run_id,
            attempt=attempt,
            op_id=self.flow.ops.next(step),
        )

    async def _finish(self) -> act.WorkItemView:
        view = await record(act.finish_work_item, self.flow.item("finish"), "Settle and end the work item")
        if view.staged and not view.status.is_final:
            return await StagedStage(self.flow).commit(view)
        return view

    async def _place(
        self, view: act.WorkItemView, run: act.RunInput, claim_before: datetime | None
    ) -> act.WorkItemView:
        """Wait in the tenant's queue for a free place; a cancel or a halt takes the run out of it."""
        flow = self.flow
        flow.show(view, waiting_for="a free place on a host runtime")
        wait = options.PLACE_WAIT_WITHOUT_CLAIM_TIME
        if claim_before is not None:
            wait = max(claim_before - workflow.now() - options.PLACE_MARGIN, options.PLACE_SHORTEST_WAIT)
        handle = workflow.start_activity(
            act.place_run,
            run,
            task_queue=options.run_queue(run.tenant_id),
            schedule_to_start_timeout=wait,
            start_to_close_timeout=options.PLACE_START_TO_CLOSE,
            retry_policy=options.PLACE_RETRY,
            summary=f"Place attempt {run.attempt} on a runtime",
        )
        while not handle.done():
            await flow.wait_for(handle)
            if not handle.done():
                view = await flow.read()
                if view.status is not _S.QUEUED or view.cancel_requested or view.held:
                    handle.cancel()
                    break
        return await self._placed(view, run, handle)

    async def _placed(
        self, view: act.WorkItemView, run: act.RunInput, handle: workflow.ActivityHandle[act.PlaceOutput]
    ) -> act.WorkItemView:
        """Go on with what came of placing; where that is not known, with what PostgreSQL says."""
        flow = self.flow
        try:
            placed = await handle
        except asyncio.CancelledError:
            if not handle.cancelled():
                raise
            flow.waited()
            return await flow.read()
        except ActivityError as error:
            if is_cancelled_exception(error) or _never_started(error):
                flow.waited()  # taken out of the queue, or nobody had a place: the warrant is minted anew, recomputed
            else:
                await self._pause()
            return await flow.read()
        if placed.state is act.PlaceState.PLACED:
            running = view.model_copy(update={"status": _S.RUNNING, "attempt": run.attempt})
            return await self._follow(running, run.model_copy(update={"op_id": flow.ops.next("follow")}))
        if placed.state is act.PlaceState.ENDED:
            return await self._finish()
        await self._pause()
        return await flow.read()

    async def _pause(self) -> None:
        """Before placing again: longer after each attempt that came to nothing."""
        flow = self.flow
        delay = options.PLACE_AGAIN_FIRST * 2 ** min(flow.place_failures, 10)
        flow.place_failures += 1
        await flow.wait(min(delay, options.PLACE_AGAIN_MOST), "Place again")

    async def _follow(self, view: act.WorkItemView, run: act.RunInput) -> act.WorkItemView:
        """Watch the attempt until its row says how it ended, or that it is gone."""
        flow = self.flow
        flow.show(view)
        handle = workflow.start_activity(
            act.follow_run,
            run,
            task_queue=options.BROKER_QUEUE,
            start_to_close_timeout=options.FOLLOW_START_TO_CLOSE,
            heartbeat_timeout=options.FOLLOW_HEARTBEAT,
            retry_policy=options.FOLLOW_RETRY,
            summary=f"Follow attempt {run.attempt}",
        )
        while not handle.done():
            await flow.wait_for(handle)
            if not handle.done():
                # A cancel or a halt reaches the run by its row; here it is only shown.
                flow.show(await flow.read())
        followed = await handle
        if followed.state is act.FollowState.SUSPENDED:
            return await flow.read()
        if followed.state is not act.FollowState.ENDED:
            lost = run.model_copy(update={"op_id": flow.ops.next("end-lost")})
            followed = await record(act.end_lost_run, lost, f"Attempt {run.attempt} is gone")
            if followed.state is not act.FollowState.ENDED:
                await self._pause()  # a runtime that starts nothing is not asked again and again without a breath
                return await flow.read()
        return await self._finish()


class StagedStage:
    """Between a run's end and the item's: its staged effects, decided as one set, committed in their order."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self._child: workflow.ChildWorkflowHandle[EffectWorkflow, act.EffectOutput] | None = None

    async def commit(self, view: act.WorkItemView) -> act.WorkItemView:
        """Go from one effect to the next; INVARIANT: what is next is read, never taken from an effect's workflow."""
        flow = self.flow
        last: UUID | None = None
        while True:
            staged = await record(act.advance_staged, flow.item("advance-staged"), "What is next of the staged effects")
            if staged.state is act.StagedState.DONE:
                return await record(act.finish_work_item, flow.item("finish"), "Settle and end the work item")
            flow.show(view, waiting_for=staged.words)
            if staged.state is act.StagedState.PERFORM and staged.action_id is not None and staged.action_id != last:
                last = staged.action_id
                await self._perform(staged.action_id)
            elif staged.state is act.StagedState.PERFORM and self._child is not None and not self._child.done():
                await flow.wait_for(self._child)
            elif staged.state is act.StagedState.ASKED and staged.approval_id is not None:
                last = None
                await self._decided(staged.approval_id, staged.expires_at)
            else:
                # People are asked about it, or its workflow is gone without having ended it: begun again after a while.
                last = None
                await flow.wait(flow.until(workflow.now() + options.DOUBT_AGAIN), staged.words or "A staged effect")
            if workflow.info().is_continue_as_new_suggested():
                return await flow.read()

    async def _perform(self, action_id: UUID) -> None:
        """Until the effect's workflow has closed, or we are told to look again: whichever it is, it is read then."""
        flow, tenant_id = self.flow, self.flow.given.tenant_id
        try:
            self._child = await workflow.start_child_workflow(
                EffectWorkflow.run,
                EffectStart(tenant_id=tenant_id, action_id=action_id),
                id=effect_workflow_id(tenant_id, action_id),
                # What was begun comes to its own end.
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                static_summary=f"Effect of action {action_id}",
            )
        except WorkflowAlreadyStartedError:
            self._child = None
            await flow.wait(flow.until(workflow.now() + options.DOUBT_AGAIN), "A staged effect is under way")
            return
        await flow.wait_for(self._child)
        if self._child.done() and not self._child.cancelled():
            self._child.exception()  # it is read, not believed

    async def _decided(self, approval_id: UUID, expires_at: datetime | None) -> None:
        """Wait for people; the question's own workflow reminds and expires, and we behind it."""
        flow = self.flow
        until = expires_at + options.EXPIRY_GRACE if expires_at is not None else None
        await flow.wait(flow.until(until), "Until the staged effects are decided")
        if expires_at is not None and workflow.now() >= expires_at + options.PARENT_EXPIRY_GRACE:
            asked = act.ApprovalInput(
                tenant_id=flow.given.tenant_id, approval_id=approval_id, op_id=flow.ops.next("expire-staged")
            )
            await record(act.expire_approval, asked, "Expire the approval")


def _never_started(error: ActivityError) -> bool:
    cause = error.__cause__
    return isinstance(cause, ActivityTimeout) and cause.type is TimeoutType.SCHEDULE_TO_START
