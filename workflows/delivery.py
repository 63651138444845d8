"""One message that leaves the house: tried until the receiver has it, for days."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import signatures as act  # stubs and value types: pure
    from workflows import options  # constants
    from workflows.details import attributes  # pure functions, no state
    from workflows.names import (
        TENANT,  # constants and ids
        DeliveryStart,  # the input's type: the client's and ours must be one
    )
    from workflows.steps import OpIds  # no state; likewise


@workflow.defn
class DeliveryWorkflow:
    """Sends one outbox entry, at least once, under one idempotency key."""

    @workflow.run
    async def run(self, given: DeliveryStart) -> act.DeliveryOutput:
        """Deliver.

        Raises:
            ActivityError: The receiver refused for good, or did not answer for days; seen in the Web UI.
        """
        attributes(TENANT.value_set(str(given.tenant_id)))
        return await workflow.execute_activity(
            act.deliver,
            act.DeliveryInput(tenant_id=given.tenant_id, outbox_id=given.outbox_id, op_id=OpIds().next("deliver")),
            start_to_close_timeout=options.DELIVER_START_TO_CLOSE,
            schedule_to_close_timeout=options.DELIVER_SCHEDULE_TO_CLOSE,
            retry_policy=options.DELIVER_RETRY,
            summary="Send, signed",
        )
