from __future__ import annotations

import asyncio
import sys
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.testservice.v1 import LockTimeSkippingRequest, UnlockTimeSkippingRequest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions
from temporalio.workflow import SandboxImportNotificationPolicy

from tests.workflows.world import World
from workflows import options
from workflows.approval import ApprovalWorkflow
from workflows.client import WorkflowGateway
from workflows.delivery import DeliveryWorkflow
from workflows.effect import EffectWorkflow
from workflows.names import SEARCH_ATTRIBUTES
from workflows.reconcile import ReconcileWorkflow
from workflows.work_item import WorkItemWorkflow

WORKFLOWS = [WorkItemWorkflow, ApprovalWorkflow, EffectWorkflow, DeliveryWorkflow, ReconcileWorkflow]
BIN = Path(sys.executable).parent


def strict_runner() -> SandboxedWorkflowRunner:
    """The sandbox, which fails an import that a workflow file did not name."""
    policy = (
        SandboxImportNotificationPolicy.WARN_ON_DYNAMIC_IMPORT
        | SandboxImportNotificationPolicy.RAISE_ON_UNINTENTIONAL_PASSTHROUGH
    )
    return SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_import_notification_policy(policy))


@pytest.fixture
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    """The time-skipping server: days pass in milliseconds."""
    env = await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(BIN / "temporal-test-server"), data_converter=pydantic_data_converter
    )
    async with env:
        await add_attributes(env)
        yield env


@pytest.fixture
async def real() -> AsyncIterator[WorkflowEnvironment]:
    async with dev_server() as env:
        yield env


@asynccontextmanager
async def dev_server(*more: str) -> AsyncGenerator[WorkflowEnvironment]:
    """The real server, in memory: for resets, terminations and what comes through its own command line."""
    extra = [word for key in SEARCH_ATTRIBUTES for word in ("--search-attribute", f"{key.name}=Keyword")]
    env = await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(BIN / "temporal"),
        namespace="awgp",
        ip="127.0.0.1",
        ui=False,
        data_converter=pydantic_data_converter,
        dev_server_extra_args=[*extra, *more],
        dev_server_log_level="error",
    )
    async with env:
        yield env


@asynccontextmanager
async def clock_runs(env: WorkflowEnvironment) -> AsyncGenerator[None]:
    """Let the time-skipping server run ahead; the real one's clock runs anyway."""
    if not env.supports_time_skipping:
        yield
        return
    await env.client.test_service.unlock_time_skipping(UnlockTimeSkippingRequest())
    try:
        yield
    finally:
        await env.client.test_service.lock_time_skipping(LockTimeSkippingRequest())


async def add_attributes(env: WorkflowEnvironment) -> None:
    from temporalio.api.enums.v1 import IndexedValueType
    from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest

    request = AddSearchAttributesRequest(
        namespace=env.client.namespace,
        search_attributes={key.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD for key in SEARCH_ATTRIBUTES},
    )
    await env.client.operator_service.add_search_attributes(request)


@asynccontextmanager
async def workers(client: Client, world: World, *, runtime: bool = True) -> AsyncGenerator[WorkflowGateway]:
    """Control, broker and (unless the tenant has no runtime) the tenant's queue."""
    # A step that ended in the very moment of its timeout, on a busy machine: nothing is amiss.
    warnings.filterwarnings("ignore", "Cannot find activity to cancel", UserWarning)
    queues = [options.BROKER_QUEUE, *([options.run_queue(world.tenant_id)] if runtime else [])]
    implementations = world.activities()
    control = Worker(
        client,
        task_queue=options.CONTROL_QUEUE,
        workflows=WORKFLOWS,
        activities=implementations,
        workflow_runner=strict_runner(),
    )
    async with control:
        others = [Worker(client, task_queue=queue, activities=implementations) for queue in queues]
        running = [await other.__aenter__() for other in others]
        try:
            yield WorkflowGateway(client)
        finally:
            for other in running:
                await other.__aexit__(None, None, None)


async def until_scheduled(env: WorkflowEnvironment, world: World, name: str) -> str:
    """Until the history holds that activity (a long poll of the server, no sleep); its id."""
    event = await _until(
        env, world, lambda event: event.activity_task_scheduled_event_attributes.activity_type.name == name
    )
    return event.activity_task_scheduled_event_attributes.activity_id


async def until_timer(env: WorkflowEnvironment, world: World) -> None:
    """Until the workflow waits by a timer."""
    await _until(env, world, lambda event: event.HasField("timer_started_event_attributes"))


async def _until(env: WorkflowEnvironment, world: World, wanted: Callable[[HistoryEvent], bool]) -> HistoryEvent:
    async with asyncio.timeout(60):
        async for event in env.client.get_workflow_handle(world.workflow_id).fetch_history_events(wait_new_event=True):
            if wanted(event):
                return event
    raise AssertionError("the workflow closed without it")


def tenant_queue_worker(client: Client, world: World, tenant_id: UUID | None = None) -> Worker:
    """The tenant's runtime comes."""
    queue = options.run_queue(tenant_id or world.tenant_id)
    return Worker(client, task_queue=queue, activities=world.activities())
