"""The time of one approval: reminders and its end. Decisions are made in PostgreSQL, and read from there."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import signatures as act  # stubs and value types: pure
    from models.domain.approval import ApprovalStatus  # an enum that those values hold
    from workflows import options  # constants
    from workflows.details import attributes  # pure functions, no state
    from workflows.names import (  # constants and ids
        AWAITING,
        LOOK_AGAIN,
        STATUS,
        TENANT,
        ApprovalStart,  # the input's type: the parent's and ours must be one
    )
    from workflows.steps import OpIds, record  # no state; likewise


@workflow.defn
class ApprovalWorkflow:
    """Reminds, and expires; ends when the row has its outcome."""

    @workflow.init
    def __init__(self, given: ApprovalStart) -> None:
        self._given = given
        self._ops = OpIds()
        self._look_again = False

    @workflow.signal(name=LOOK_AGAIN)
    def look_again(self) -> None:
        """Something changed: read what PostgreSQL holds."""
        self._look_again = True

    @workflow.run
    async def run(self, given: ApprovalStart) -> act.ApprovalOutput:
        """Live until the approval is final.

        A cancellation (the parent has closed) closes the approval only if its item is over: the database says so, not
        the message.
        """
        opened = await record(act.describe_approval, self._step("describe"), "Read the question")
        workflow.set_current_details(
            f"**Who must decide** {opened.who}  \n**Until** {opened.expires_at:%Y-%m-%d %H:%M UTC}\n\n"
            f"**Next** `awgp approve {given.approval_id}` or `awgp reject {given.approval_id}`"
        )
        self._show(opened.status)
        body = asyncio.create_task(self._live(opened))
        try:
            outcome = await asyncio.shield(body)
        except asyncio.CancelledError:
            await record(act.cancel_approval, self._step("cancel"), "Close what nobody needs any more")
            self.look_again()
            outcome = await body
        self._show(outcome.status)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return outcome

    async def _live(self, opened: act.ApprovalOpened) -> act.ApprovalOutput:
        outcome = act.ApprovalOutput(status=opened.status)
        reminders = sorted(at for at in opened.remind_at if workflow.now() < at < opened.expires_at)
        while outcome.status is ApprovalStatus.PENDING:
            expiry = opened.expires_at + options.EXPIRY_GRACE
            moment = min(reminders[0], expiry) if reminders else expiry
            told = await self._wait(moment - workflow.now(), "Reminder" if reminders else "Expiry")
            if not told and reminders and workflow.now() >= reminders[0]:
                reminders.pop(0)
                outcome = await record(act.remind_approvers, self._step("remind"), "Remind who must decide")
            elif workflow.now() >= expiry:
                # The database's clock decides, and a decision that was first stands: the answer is the outcome.
                outcome = await record(act.expire_approval, self._step("expire"), "Expire the approval")
            else:
                outcome = await record(act.read_approval, self._step("read"), "Read the outcome")
        return outcome

    async def _wait(self, at_most: timedelta, summary: str) -> bool:
        """Whether somebody told us to look again before the time had passed."""
        try:
            await workflow.wait_condition(
                lambda: self._look_again,
                timeout=max(at_most, options.LOOK_AGAIN_AT_LEAST),
                timeout_summary=summary,
            )
        except TimeoutError:
            return False
        finally:
            self._look_again = False
        return True

    def _step(self, step: str) -> act.ApprovalInput:
        return act.ApprovalInput(
            tenant_id=self._given.tenant_id, approval_id=self._given.approval_id, op_id=self._ops.next(step)
        )

    def _show(self, status: ApprovalStatus) -> None:
        awaiting = "approval" if status is ApprovalStatus.PENDING else "nothing"
        attributes(
            TENANT.value_set(str(self._given.tenant_id)), STATUS.value_set(status.value), AWAITING.value_set(awaiting)
        )
