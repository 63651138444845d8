"""Continuing as new, deliveries, reconciliation."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest
from temporalio import activity
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities import signatures as act
from models.domain.approval import ApprovalStatus
from models.domain.risk import RiskLevel
from models.domain.work_item import WorkItemStatus as S
from tests.workflows.conftest import WORKFLOWS, clock_runs, dev_server, strict_runner, until_timer, workers
from tests.workflows.test_work_item import ended
from tests.workflows.world import World
from workflows import options
from workflows.client import WorkflowGateway
from workflows.names import ReconcileStart, approval_workflow_id, delivery_workflow_id
from workflows.reconcile import ReconcileWorkflow


async def test_a_long_history_is_continued_as_new_and_nothing_is_asked_twice() -> None:
    suggested = ("--dynamic-config-value", "limit.historyCount.suggestContinueAsNew=40")
    async with dev_server(*suggested) as env:
        world = World(level=RiskLevel.L3)
        async with workers(env.client, world) as gateway:
            await gateway.start_work_item(world.tenant_id, world.work_item_id)
            await until_timer(env, world)
            first = await env.client.get_workflow_handle(world.workflow_id).describe()
            for number in range(2, 16):
                await gateway.signal_work_item(world.tenant_id, world.work_item_id)
                async with asyncio.timeout(30):
                    await world.saw(f"read_approval {number}").wait()
            now = await env.client.get_workflow_handle(world.workflow_id).describe()
            assert now.run_id != first.run_id
            assert world.asked["assess"] >= 2, "the new run reads where the item is"
            child = await env.client.get_workflow_handle(approval_workflow_id(world.approval_id)).describe()
            assert child.status is WorkflowExecutionStatus.RUNNING, "the old child lives on"
            assert world.approval is ApprovalStatus.PENDING
            world.approval = ApprovalStatus.APPROVED
            await gateway.signal_work_item(world.tenant_id, world.work_item_id)
            assert await ended(env, world) is S.SUCCEEDED
        assert world.claims == 1


def outside(client_env: WorkflowEnvironment, *activities: object) -> Worker:
    return Worker(
        client_env.client,
        task_queue=options.CONTROL_QUEUE,
        workflows=WORKFLOWS,
        activities=list(activities),  # pyright: ignore[reportArgumentType]
        workflow_runner=strict_runner(),
    )


async def test_a_delivery_is_tried_for_days_under_one_key(skipping: WorkflowEnvironment) -> None:
    keys: list[str] = []

    @activity.defn(name="deliver")
    async def deliver(given: act.DeliveryInput) -> act.DeliveryOutput:
        keys.append(f"{given.outbox_id} {given.op_id}")
        if len(keys) < 8:
            raise ApplicationError("the receiver answered 503", type="dependency-away")
        return act.DeliveryOutput(delivered=True, words="taken: 204")

    tenant, outbox = uuid4(), uuid4()
    async with outside(skipping, deliver):
        gateway = WorkflowGateway(skipping.client)
        assert await gateway.start_delivery(tenant, outbox)
        assert not await gateway.start_delivery(tenant, outbox)
        async with asyncio.timeout(60), clock_runs(skipping):
            answer = await skipping.client.get_workflow_handle(delivery_workflow_id(outbox)).result()
    assert answer["delivered"]
    assert len(keys) == 8
    assert len(set(keys)) == 1


async def test_a_refused_delivery_is_seen_to_have_failed(skipping: WorkflowEnvironment) -> None:
    @activity.defn(name="deliver")
    async def deliver(_given: act.DeliveryInput) -> act.DeliveryOutput:
        raise ApplicationError("there is no such entry", type="not-found", non_retryable=True)

    outbox = uuid4()
    async with outside(skipping, deliver):
        await WorkflowGateway(skipping.client).start_delivery(uuid4(), outbox)
        with pytest.raises(WorkflowFailureError):
            async with asyncio.timeout(60), clock_runs(skipping):
                await skipping.client.get_workflow_handle(delivery_workflow_id(outbox)).result()


async def test_reconciliation_goes_through_every_page(skipping: WorkflowEnvironment) -> None:
    ids = sorted(uuid4() for _ in range(7))
    seen: list[UUID] = []

    def page(name: str) -> object:
        @activity.defn(name=name)
        async def of(given: act.ReconcileInput) -> act.ReconcileOutput:
            assert given.run
            found = [one for one in ids if given.after is None or one > given.after][: given.limit]
            seen.extend(found)
            more = found[-1] if len(found) == given.limit else None
            return act.ReconcileOutput(seen=len(found), settled=1, next_after=more)

        return of

    names = ("reconcile_work_items", "reconcile_approvals", "reconcile_effects", "reconcile_money")
    pages = [page(name) for name in names]
    async with outside(skipping, *pages), asyncio.timeout(60):
        total = await skipping.client.execute_workflow(
            ReconcileWorkflow.run, ReconcileStart(page=3), id="reconcile", task_queue=options.CONTROL_QUEUE
        )
    assert seen == ids * 4
    assert (total.seen, total.settled, total.next_after) == (28, 12, None)
