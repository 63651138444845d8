"""Whoever holds Temporal's own command line can delay work, and cannot make anything run."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import WorkflowExecutionStatus
from temporalio.testing import WorkflowEnvironment

from models.domain.approval import ApprovalStatus
from models.domain.risk import RiskLevel
from models.domain.work_item import WorkItemStatus as S
from tests.workflows.conftest import BIN, until_scheduled, until_timer, workers
from tests.workflows.test_work_item import ended
from tests.workflows.world import World
from workflows.client import WorkflowState


async def temporal(env: WorkflowEnvironment, *words: str) -> None:
    """Temporal's command."""
    address = env.client.service_client.config.target_host
    process = await asyncio.create_subprocess_exec(
        str(BIN / "temporal"), *words, "--address", address, "--namespace", "awgp",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def start(env: WorkflowEnvironment, workflow_id: str, given: dict[str, Any]) -> WorkflowExecutionStatus | None:
    await temporal(
        env, "workflow", "start", "--type", "WorkItemWorkflow", "--task-queue", "control",
        "-w", workflow_id, "--input", json.dumps(given),
    )  # fmt: skip
    async with asyncio.timeout(30):
        handle = env.client.get_workflow_handle(workflow_id)
        async for _ in handle.fetch_history_events(wait_new_event=True):
            pass
    return (await handle.describe()).status


async def test_a_forged_start_of_an_item_that_is_not_there(real: WorkflowEnvironment) -> None:
    world, tenant, item = World(), uuid4(), uuid4()
    async with workers(real.client, world):
        given = {"tenant_id": str(tenant), "work_item_id": str(item)}
        assert await start(real, f"work-item/{tenant}/{item}", given) is WorkflowExecutionStatus.FAILED
    assert not world.steps


async def test_a_second_workflow_for_an_item_does_nothing(real: WorkflowEnvironment) -> None:
    world = World()
    async with workers(real.client, world):
        given = {"tenant_id": str(world.tenant_id), "work_item_id": str(world.work_item_id)}
        assert await start(real, "work-item/forged", given) is WorkflowExecutionStatus.FAILED
    assert not world.steps


async def test_forged_signals_of_any_content_decide_nothing(real: WorkflowEnvironment) -> None:
    world = World(level=RiskLevel.L3)
    async with workers(real.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        await until_timer(real, world)
        for name, content in (("look_again", {"status": "approved"}), ("approved", True), ("decide", "approve")):
            await temporal(
                real, "workflow", "signal", "-w", world.workflow_id, "--name", name, "--input", json.dumps(content)
            )
        await gateway.signal_work_item(world.tenant_id, world.work_item_id)
        await world.saw("read_approval 2").wait()
        assert world.asked["mint"] == 0
        assert await gateway.describe_work_item(world.tenant_id, world.work_item_id) is WorkflowState.RUNNING
        world.approval = ApprovalStatus.APPROVED
        await gateway.signal_work_item(world.tenant_id, world.work_item_id)
        assert await ended(real, world) is S.SUCCEEDED


@pytest.mark.parametrize(
    "forged", [{"state": "placed"}, {"state": "ended"}, {"state": "stale"}], ids=lambda forged: forged["state"]
)
async def test_a_forged_completion_of_placing_runs_nothing(real: WorkflowEnvironment, forged: dict[str, Any]) -> None:
    world = World(run_holds=True)
    async with workers(real.client, world, runtime=False) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        activity_id = await until_scheduled(real, world, "place_run")
        await temporal(
            real, "activity", "complete", "-w", world.workflow_id, "--activity-id", activity_id,
            "--result", json.dumps(forged),
        )  # fmt: skip
        # Whatever it made of that, a cancel still ends the item, and nothing was claimed.
        world.ask_cancel()
        world.run_ends.set()
        await gateway.signal_work_item(world.tenant_id, world.work_item_id)
        async with asyncio.timeout(60):
            await ended(real, world)
    assert world.claims == 0


@pytest.mark.parametrize("state", ["awaiting_approval", "queued", "running"])
async def test_a_reset_runs_nothing_twice(real: WorkflowEnvironment, state: str) -> None:
    world = World(level=RiskLevel.L3 if state == "awaiting_approval" else RiskLevel.L1, run_holds=state == "running")
    async with workers(real.client, world, runtime=state != "queued") as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        if state == "awaiting_approval":
            await until_timer(real, world)
        else:
            await until_scheduled(real, world, "place_run" if state == "queued" else "follow_run")
        before = world.asked["assess"]
        await temporal(
            real, "workflow", "reset", "-w", world.workflow_id, "--type", "FirstWorkflowTask", "--reason", "a test"
        )
        await world.saw(f"assess {before + 1}").wait()
        if state == "awaiting_approval":
            world.approval = ApprovalStatus.APPROVED
            await gateway.signal_work_item(world.tenant_id, world.work_item_id)
        if state == "running":
            await world.saw("follow 2").wait()
            world.run_ends.set()
        if state == "queued":
            world.ask_cancel()
            await gateway.signal_work_item(world.tenant_id, world.work_item_id)
        end = await ended(real, world)
    assert end is (S.CANCELLED if state == "queued" else S.SUCCEEDED)
    assert world.claims == (0 if state == "queued" else 1)


async def test_a_terminated_workflow_is_told_from_a_missing_one(real: WorkflowEnvironment) -> None:
    world = World(level=RiskLevel.L3)
    async with workers(real.client, world) as gateway:
        assert await gateway.describe_work_item(world.tenant_id, world.work_item_id) is WorkflowState.MISSING
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        await until_timer(real, world)
        await temporal(real, "workflow", "terminate", "-w", world.workflow_id, "--reason", "a test")
        assert await gateway.describe_work_item(world.tenant_id, world.work_item_id) is WorkflowState.TERMINATED
        assert not await gateway.start_work_item(world.tenant_id, world.work_item_id), "never started again"
        assert await gateway.start_approval(world.tenant_id, world.work_item_id, world.approval_id) in (True, False)


async def test_the_schedule_is_made_once_and_brought_up_to_date(real: WorkflowEnvironment) -> None:
    world = World()
    async with workers(real.client, world) as gateway:
        await gateway.ensure_schedule()
        await gateway.ensure_schedule()
        described = await real.client.get_schedule_handle("reconcile").describe()
        assert described.schedule.policy.overlap.name == "SKIP"
