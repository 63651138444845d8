"""One effect outside: leave, a try, and what follows from it. Whether and what is done, PostgreSQL says."""

from __future__ import annotations

import contextlib
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities import signatures as act  # stubs and value types: pure
    from workflows import options  # constants
    from workflows.details import attributes  # pure functions, no state
    from workflows.names import (  # constants and ids
        AWAITING,
        LOOK_AGAIN,
        TENANT,
        EffectStart,  # the input's type: the client's and ours must be one
        effect_workflow_id,
    )
    from workflows.steps import OpIds, record  # no state; likewise


@workflow.defn
class EffectWorkflow:
    """Performs one effect, or says why not.

    INVARIANT: nothing that it is told makes it perform anything: a warrant is minted from the rows, and used up before
    the request leaves. So it may be started, reset and completed by anybody at any time.
    """

    @workflow.init
    def __init__(self, given: EffectStart) -> None:
        self._given = given
        self._ops = OpIds(given.generation)
        self._look_again = False
        self._tries = 0
        self._halts = 0
        self._awaiting = ""

    @workflow.signal(name=LOOK_AGAIN)
    def look_again(self) -> None:
        """Something changed: read what PostgreSQL holds."""
        self._look_again = True

    @workflow.run
    async def run(self, given: EffectStart) -> act.EffectOutput:
        """Live until the effect is performed, has failed, or is put before people.

        Raises:
            FailureError: A domain error, such as an action that does not exist.
        """
        if workflow.info().workflow_id != effect_workflow_id(given.tenant_id, given.action_id):
            raise ApplicationError("this workflow does not bear the action's id", type="forbidden", non_retryable=True)
        words = await self._live()
        while self._look_again:
            # People have answered in the very moment in which it was put before them.
            words = await self._live()
        self._show("nothing", words)
        return act.EffectOutput(words=words)

    async def _live(self) -> str:
        while True:
            self._look_again = False
            minted = await record(act.mint_effect, self._step("mint"), "Ask for leave to perform this once")
            if minted.state is act.EffectMintState.ENDED:
                return minted.words
            if minted.state is act.EffectMintState.HALTED:
                await self._held(minted.words)
                continue
            if minted.state is act.EffectMintState.MINTED:
                self._show("answer", "The other side is asked")
                await self._perform()
            settled = await self._settle()
            if settled.state is act.SettleState.DONE:
                return settled.words
            self._tries += 1
            self._show("answer", f"To be tried again: {settled.words}")
            await self._wait(_backoff(self._tries), "Before the next try")
            self._continue_if_long()

    async def _perform(self) -> None:
        try:
            await workflow.execute_activity(
                act.perform_effect,
                self._step("perform"),
                start_to_close_timeout=options.PERFORM_START_TO_CLOSE,
                schedule_to_close_timeout=options.PERFORM_SCHEDULE_TO_CLOSE,
                heartbeat_timeout=options.PERFORM_HEARTBEAT,
                retry_policy=options.PERFORM_RETRY,
                summary="Perform, once",
            )
        except ActivityError as error:
            # Whatever it says, as when it says that all is well: what came of it is read.
            if is_cancelled_exception(error):
                raise

    async def _settle(self) -> act.SettleOutput:
        while True:
            settled = await record(act.settle_effect, self._step("settle"), "Say what follows")
            if settled.state is not act.SettleState.WAIT:
                return settled
            until = settled.until or workflow.now()
            self._show("answer", "A try is under way, or whoever made it is gone")
            await self._wait(until - workflow.now() + options.SETTLE_MARGIN, "Until the try's time is over")
            self._continue_if_long()

    async def _held(self, words: str) -> None:
        self._show("halt", f"Held: {words}")
        slow = min(options.LOOK_AGAIN_FIRST * 2 ** min(self._halts, 8), options.LOOK_AGAIN_MOST)
        self._halts += 1
        await self._wait(slow, "Held by a halt: look again")
        self._continue_if_long()

    async def _wait(self, at_most: timedelta, summary: str) -> None:
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._look_again,
                timeout=max(at_most, options.LOOK_AGAIN_AT_LEAST),
                timeout_summary=summary,
            )
        self._look_again = False

    def _continue_if_long(self) -> None:
        if workflow.info().is_continue_as_new_suggested():
            workflow.continue_as_new(self._given.model_copy(update={"generation": self._given.generation + 1}))

    def _step(self, step: str) -> act.EffectInput:
        # It is begun again under the same id: its steps are others than those of the time before.
        op_id = f"{self._ops.next(step)}/{workflow.info().first_execution_run_id}"
        return act.EffectInput(tenant_id=self._given.tenant_id, action_id=self._given.action_id, op_id=op_id)

    def _show(self, awaiting: str, words: str) -> None:
        line = " ".join(words.split()).replace("`", "'").replace("<", "&lt;")
        workflow.set_current_details(f"**Effect** of action {self._given.action_id}  \n{line}")
        if awaiting != self._awaiting:
            self._awaiting = awaiting
            attributes(TENANT.value_set(str(self._given.tenant_id)), AWAITING.value_set(awaiting))


def _backoff(tries: int) -> timedelta:
    return min(options.PERFORM_AGAIN_FIRST * 2 ** min(tries - 1, 10), options.PERFORM_AGAIN_MOST)
