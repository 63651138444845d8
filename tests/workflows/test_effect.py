"""The time of an effect, and of staged ones: what is done is PostgreSQL's to say."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import WorkflowExecutionStatus
from temporalio.testing import WorkflowEnvironment

from activities import signatures as act
from models.domain.approval import ApprovalStatus
from models.domain.work_item import WorkItemStatus as S
from tests.workflows.conftest import clock_runs, workers
from tests.workflows.test_forged import temporal
from tests.workflows.test_work_item import ended
from tests.workflows.world import World
from workflows.client import WorkflowState
from workflows.names import effect_workflow_id

AGAIN = act.SettleOutput(state=act.SettleState.AGAIN, words="nothing was sent")


async def closed(env: WorkflowEnvironment, world: World) -> dict[str, Any]:
    async with asyncio.timeout(60), clock_runs(env):
        return await env.client.get_workflow_handle(effect_workflow_id(world.tenant_id, world.action_id)).result()


async def test_an_effect_is_performed_once(skipping: WorkflowEnvironment) -> None:
    world = World()
    async with workers(skipping.client, world) as gateway:
        assert await gateway.start_effect(world.tenant_id, world.action_id)
        await closed(skipping, world)
        assert world.steps == ["mint_effect", "perform_effect", "settle_effect"]
        # Started any number of times, it performs nothing more.
        for _ in range(2):
            assert await gateway.start_effect(world.tenant_id, world.action_id)
            await closed(skipping, world)
    assert world.performed == [world.action_id]
    assert world.asked["perform_effect"] == 1


async def test_harmless_tries_follow_each_other_ever_more_slowly(skipping: WorkflowEnvironment) -> None:
    world = World(settle_answers=[AGAIN] * 9)
    began = await skipping.get_current_time()
    async with workers(skipping.client, world) as gateway:
        await gateway.start_effect(world.tenant_id, world.action_id)
        await closed(skipping, world)
    assert world.asked["perform_effect"] == 10
    assert await skipping.get_current_time() - began >= timedelta(seconds=2 + 4 + 8 + 16 + 32 + 64 + 128 + 256 + 300)


async def test_a_try_without_an_answer_is_settled_when_its_time_is_over(skipping: WorkflowEnvironment) -> None:
    until = await skipping.get_current_time() + timedelta(minutes=2)
    waits = act.SettleOutput(state=act.SettleState.WAIT, until=until)
    asked = act.SettleOutput(state=act.SettleState.DONE, words="people are asked")
    world = World(settle_answers=[waits, asked])
    async with workers(skipping.client, world) as gateway:
        await gateway.start_effect(world.tenant_id, world.action_id)
        assert (await closed(skipping, world))["words"] == "people are asked"
        assert await skipping.get_current_time() >= until
    assert world.asked["perform_effect"] == 1


async def test_a_halt_holds_it_until_it_is_lifted(real: WorkflowEnvironment) -> None:
    world = World(effects_halted=True)
    async with workers(real.client, world) as gateway:
        await gateway.start_effect(world.tenant_id, world.action_id)
        await world.saw("effect_held").wait()
        assert await gateway.describe_effect(world.tenant_id, world.action_id) is WorkflowState.RUNNING
        world.effects_halted = False
        await gateway.signal_effect(world.tenant_id, world.action_id)
        await closed(real, world)
    assert world.performed == [world.action_id]


async def test_what_perform_says_is_not_believed(real: WorkflowEnvironment) -> None:
    """Neither a failure nor a success that somebody says for it makes anything so."""
    world = World(settle_answers=[AGAIN], broken={"perform_effect": RuntimeError("the worker is gone")})
    async with workers(real.client, world) as gateway:
        await gateway.start_effect(world.tenant_id, world.action_id)
        await world.saw("settle_effect 1").wait()
        world.broken.clear()
        await closed(real, world)
    assert world.performed == [world.action_id]


async def test_forged_starts_perform_nothing_twice_and_nothing_unpermitted(real: WorkflowEnvironment) -> None:
    world, stranger = World(), uuid4()
    async with workers(real.client, world) as gateway:
        await gateway.start_effect(world.tenant_id, world.action_id)
        await closed(real, world)
        for workflow_id, action, end in (
            (effect_workflow_id(world.tenant_id, world.action_id), world.action_id, WorkflowExecutionStatus.COMPLETED),
            ("effect/forged", world.action_id, WorkflowExecutionStatus.FAILED),
            (effect_workflow_id(world.tenant_id, stranger), stranger, WorkflowExecutionStatus.COMPLETED),
        ):
            given = {"tenant_id": str(world.tenant_id), "action_id": str(action)}
            await temporal(
                real, "workflow", "start", "--type", "EffectWorkflow", "--task-queue", "control",
                "-w", workflow_id, "--input", json.dumps(given),
            )  # fmt: skip
            handle = real.client.get_workflow_handle(workflow_id)
            async for _ in handle.fetch_history_events(wait_new_event=True):
                pass
            assert (await handle.describe()).status is end
    assert world.performed == [world.action_id]


async def test_a_reset_performs_nothing_again(real: WorkflowEnvironment) -> None:
    world = World()
    workflow_id = effect_workflow_id(world.tenant_id, world.action_id)
    async with workers(real.client, world) as gateway:
        await gateway.start_effect(world.tenant_id, world.action_id)
        await closed(real, world)
        await temporal(
            real, "workflow", "reset", "-w", workflow_id, "--type", "FirstWorkflowTask", "--reason", "a test"
        )
        await closed(real, world)
    assert world.performed == [world.action_id]


# --- Staged ----------------------------------------------------------------------------------------------------------


async def test_staged_effects_are_committed_in_order_before_the_item_ends(skipping: WorkflowEnvironment) -> None:
    world = World(staged=[uuid4() for _ in range(3)])
    async with workers(skipping.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        assert await ended(skipping, world) is S.SUCCEEDED
    assert world.performed == world.staged
    assert world.asked["finish"] == 2


@pytest.mark.parametrize("verdict", [ApprovalStatus.APPROVED, ApprovalStatus.REJECTED])
async def test_people_decide_about_the_set_first(real: WorkflowEnvironment, verdict: ApprovalStatus) -> None:
    world = World(staged=[uuid4(), uuid4()], staged_approval=ApprovalStatus.PENDING)
    async with workers(real.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        await world.saw("staged_asked").wait()
        assert world.performed == []
        # A signal alone decides nothing.
        world.saw("staged_asked").clear()
        await gateway.signal_work_item(world.tenant_id, world.work_item_id)
        await world.saw("staged_asked").wait()
        world.staged_approval = verdict
        await gateway.signal_work_item(world.tenant_id, world.work_item_id)
        await ended(real, world)
    assert world.performed == (world.staged if verdict is ApprovalStatus.APPROVED else [])


async def test_the_question_about_the_set_ends_with_its_time(skipping: WorkflowEnvironment) -> None:
    now = await skipping.get_current_time()
    world = World(
        staged=[uuid4()],
        staged_approval=ApprovalStatus.PENDING,
        approval=ApprovalStatus.PENDING,
        expires_at=now + timedelta(days=2),
    )
    async with workers(skipping.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        await ended(skipping, world)
        assert await skipping.get_current_time() >= world.expires_at
    assert (world.performed, world.asked["expire_approval"]) == ([], 1)


async def test_a_cancel_between_two_effects_leaves_the_rest(real: WorkflowEnvironment) -> None:
    world = World(staged=[uuid4(), uuid4()], effects_halted=True)
    async with workers(real.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        await world.saw("effect_held").wait()
        world.cancel_requested = True
        await gateway.signal_work_item(world.tenant_id, world.work_item_id)
        await ended(real, world)
    assert world.performed == []


async def test_an_effect_whose_workflow_was_terminated_is_begun_again(real: WorkflowEnvironment) -> None:
    world = World(staged=[uuid4(), uuid4()], effects_halted=True)
    child = effect_workflow_id(world.tenant_id, world.staged[0])
    async with workers(real.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        await world.saw("effect_held").wait()
        world.effects_halted = False
        await real.client.get_workflow_handle(child).terminate("a test")
        for _ in range(2):  # the first finds the same effect unfinished, and waits a while
            await gateway.signal_work_item(world.tenant_id, world.work_item_id)
        assert await ended(real, world) is S.SUCCEEDED
    assert world.performed == world.staged


def test_times_are_the_databases() -> None:
    """A settle's moment crosses Temporal with its zone."""
    said = act.SettleOutput(state=act.SettleState.WAIT, until=datetime(2026, 1, 1, tzinfo=UTC))
    assert act.SettleOutput.model_validate_json(said.model_dump_json()) == said
