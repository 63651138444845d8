"""The only code that starts, signals, describes or cancels a workflow.

Whatever it sends carries no authority: a workflow reads what PostgreSQL holds. So every call may be repeated, and
nothing is lost when one is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from uuid import UUID

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
    WorkflowExecutionStatus,
    WorkflowHandle,
)
from temporalio.common import Priority, SearchAttributePair, TypedSearchAttributes, WorkflowIDReusePolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from workflows import options
from workflows.approval import ApprovalWorkflow
from workflows.delivery import DeliveryWorkflow
from workflows.effect import EffectWorkflow
from workflows.names import (
    LOOK_AGAIN,
    RECONCILE_SCHEDULE,
    TENANT,
    ApprovalStart,
    DeliveryStart,
    EffectStart,
    ReconcileStart,
    WorkItemStart,
    approval_workflow_id,
    delivery_workflow_id,
    effect_workflow_id,
    work_item_workflow_id,
)
from workflows.reconcile import ReconcileWorkflow
from workflows.work_item import WorkItemWorkflow


class WorkflowState(StrEnum):
    """What `describe` says of a workflow."""

    MISSING = "missing"
    RUNNING = "running"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"
    """It failed or timed out: a domain error, or days without the database."""
    TERMINATED = "terminated"


_STATES = {
    WorkflowExecutionStatus.RUNNING: WorkflowState.RUNNING,
    WorkflowExecutionStatus.CONTINUED_AS_NEW: WorkflowState.RUNNING,
    WorkflowExecutionStatus.COMPLETED: WorkflowState.COMPLETED,
    WorkflowExecutionStatus.CANCELED: WorkflowState.CANCELLED,
    WorkflowExecutionStatus.TERMINATED: WorkflowState.TERMINATED,
}


async def connect(
    address: str, namespace: str, *, waiting: Callable[[str], None] | None = None, tries: int = 120
) -> Client:
    """Connect to Temporal and prove it by a call (a connection alone proves nothing, e.g. of a token).

    Args:
        address: The frontend, `host:port`.
        namespace: It must exist.
        waiting: Called with a sentence before each further try, so that a process says what it waits for.
        tries: At most so many, 0.2 s to 5 s apart.

    Raises:
        ConnectionError: Temporal did not answer.
    """
    delay = 0.2
    for number in range(1, tries + 1):
        try:
            client = await Client.connect(address, namespace=namespace, data_converter=pydantic_data_converter)
            await client.count_workflows("WorkflowId = 'awgp-probe'", rpc_timeout=options.RPC_TIMEOUT)
            return client
        except (RPCError, RuntimeError, OSError) as error:
            why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            if number == tries:
                raise ConnectionError(f"Temporal at {address}, namespace {namespace}: {why}") from error
            if waiting is not None:
                waiting(f"Temporal at {address}, namespace {namespace}: {why}")
            await asyncio.sleep(delay)
            delay = min(delay * 1.6, 5.0)
    raise AssertionError("unreachable")


class WorkflowGateway:
    """Starts, signals and describes the workflows of this installation."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def ping(self) -> None:
        """Raise when Temporal does not answer (`RPCError`)."""
        await self._client.count_workflows("WorkflowId = 'awgp-probe'", rpc_timeout=options.RPC_TIMEOUT)

    async def start_work_item(self, tenant_id: UUID, work_item_id: UUID, summary: str = "") -> bool:
        """Start a work item's workflow once, for ever.

        Returns:
            False when it was started before, open or closed: that is success as well.
        """
        return await _started(
            self._client.start_workflow(
                WorkItemWorkflow.run,
                WorkItemStart(tenant_id=tenant_id, work_item_id=work_item_id),
                id=work_item_workflow_id(tenant_id, work_item_id),
                task_queue=options.CONTROL_QUEUE,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                search_attributes=_tenant(tenant_id),
                priority=_fair(tenant_id),
                static_summary=summary or f"Work item {work_item_id}",
                static_details=f"`awgp show {work_item_id}`",
                rpc_timeout=options.RPC_TIMEOUT,
            )
        )

    async def start_approval(self, tenant_id: UUID, work_item_id: UUID | None, approval_id: UUID) -> bool:
        """Start an approval's workflow: of an action, or where the parent's child is gone; it carries time only."""
        return await _started(
            self._client.start_workflow(
                ApprovalWorkflow.run,
                ApprovalStart(tenant_id=tenant_id, work_item_id=work_item_id, approval_id=approval_id),
                id=approval_workflow_id(approval_id),
                task_queue=options.CONTROL_QUEUE,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
                search_attributes=_tenant(tenant_id),
                priority=_fair(tenant_id),
                static_summary=f"Approval {approval_id}",
                rpc_timeout=options.RPC_TIMEOUT,
            )
        )

    async def start_delivery(self, tenant_id: UUID, outbox_id: UUID) -> bool:
        """Start the delivery of an outbox entry once."""
        return await _started(
            self._client.start_workflow(
                DeliveryWorkflow.run,
                DeliveryStart(tenant_id=tenant_id, outbox_id=outbox_id),
                id=delivery_workflow_id(outbox_id),
                task_queue=options.CONTROL_QUEUE,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                search_attributes=_tenant(tenant_id),
                priority=_fair(tenant_id),
                static_summary=f"Delivery {outbox_id}",
                rpc_timeout=options.RPC_TIMEOUT,
            )
        )

    async def start_effect(self, tenant_id: UUID, action_id: UUID) -> bool:
        """Start performing an action's effect; where that is under way, or just about to end, tell it to look again.

        It may be started any number of times: what is done already, or not allowed, PostgreSQL gives no leave for.
        """
        return await _started(
            self._client.start_workflow(
                EffectWorkflow.run,
                EffectStart(tenant_id=tenant_id, action_id=action_id),
                id=effect_workflow_id(tenant_id, action_id),
                start_signal=LOOK_AGAIN,
                task_queue=options.CONTROL_QUEUE,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                search_attributes=_tenant(tenant_id),
                priority=_fair(tenant_id),
                static_summary=f"Effect of action {action_id}",
                rpc_timeout=options.RPC_TIMEOUT,
            )
        )

    async def signal_work_item(self, tenant_id: UUID, work_item_id: UUID) -> bool:
        """Tell the workflow to look again; False when it is closed or missing, which leaves nothing to tell."""
        return await _found(self._signal(work_item_workflow_id(tenant_id, work_item_id)))

    async def signal_effect(self, tenant_id: UUID, action_id: UUID) -> bool:
        """The same for an effect's workflow."""
        return await _found(self._signal(effect_workflow_id(tenant_id, action_id)))

    async def describe_effect(self, tenant_id: UUID, action_id: UUID) -> WorkflowState:
        """What Temporal itself says of an effect's workflow."""
        return await self._describe(effect_workflow_id(tenant_id, action_id))

    async def signal_approval(self, approval_id: UUID) -> bool:
        """The same for an approval's workflow."""
        return await _found(self._signal(approval_workflow_id(approval_id)))

    async def describe_work_item(self, tenant_id: UUID, work_item_id: UUID) -> WorkflowState:
        """Ask Temporal itself (never a visibility list, which lags)."""
        return await self._describe(work_item_workflow_id(tenant_id, work_item_id))

    async def describe_approval(self, approval_id: UUID) -> WorkflowState:
        """The same for an approval's workflow."""
        return await self._describe(approval_workflow_id(approval_id))

    async def cancel_work_item(self, tenant_id: UUID, work_item_id: UUID) -> bool:
        """Ask an open workflow to close; the row decides what that means."""
        return await _found(self._cancel(work_item_workflow_id(tenant_id, work_item_id)))

    async def cancel_approval(self, approval_id: UUID) -> bool:
        """The same for an approval's workflow."""
        return await _found(self._cancel(approval_workflow_id(approval_id)))

    async def ensure_schedule(self) -> None:
        """Create the reconciliation's schedule, or bring it up to date."""
        schedule = _reconcile_schedule()
        try:
            await self._client.create_schedule(RECONCILE_SCHEDULE, schedule, rpc_timeout=options.RPC_TIMEOUT)
        except ScheduleAlreadyRunningError:

            def update(_given: ScheduleUpdateInput) -> ScheduleUpdate:
                return ScheduleUpdate(schedule=schedule)

            handle = self._client.get_schedule_handle(RECONCILE_SCHEDULE)
            await handle.update(update, rpc_timeout=options.RPC_TIMEOUT)

    def _handle(self, workflow_id: str) -> WorkflowHandle[object, object]:
        return self._client.get_workflow_handle(workflow_id)

    async def _signal(self, workflow_id: str) -> None:
        await self._handle(workflow_id).signal(LOOK_AGAIN, rpc_timeout=options.RPC_TIMEOUT)

    async def _cancel(self, workflow_id: str) -> None:
        await self._handle(workflow_id).cancel(rpc_timeout=options.RPC_TIMEOUT)

    async def _describe(self, workflow_id: str) -> WorkflowState:
        try:
            description = await self._handle(workflow_id).describe(rpc_timeout=options.RPC_TIMEOUT)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return WorkflowState.MISSING
            raise
        if description.status is None:
            return WorkflowState.RUNNING
        return _STATES.get(description.status, WorkflowState.FAILED)


def _tenant(tenant_id: UUID) -> TypedSearchAttributes:
    return TypedSearchAttributes([SearchAttributePair(TENANT, str(tenant_id))])


def _fair(tenant_id: UUID) -> Priority:
    """One company's flood takes its turn beside the others' trickle; activities and children inherit it."""
    return Priority(fairness_key=str(tenant_id))


def _reconcile_schedule() -> Schedule:
    return Schedule(
        action=ScheduleActionStartWorkflow(
            ReconcileWorkflow.run,
            ReconcileStart(),
            id=RECONCILE_SCHEDULE,
            task_queue=options.CONTROL_QUEUE,
            run_timeout=options.RECONCILE_RUN_TIMEOUT,
            static_summary="Compare PostgreSQL with Temporal and mend what differs",
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=options.RECONCILE_EVERY)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=options.RECONCILE_EVERY),
    )


async def _started(starting: Awaitable[object]) -> bool:
    try:
        await starting
    except WorkflowAlreadyStartedError:
        return False
    return True


async def _found(telling: Awaitable[object]) -> bool:
    try:
        await telling
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
    return True
