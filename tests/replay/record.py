"""Record histories: ``python -m tests.replay.record <release> [scene …]`` (real server, in-memory rows).

A released folder is never recorded again: a change that no longer replays it goes behind `workflow.patched`.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from activities import signatures as act
from models.domain.approval import ApprovalStatus
from models.domain.risk import RiskLevel
from tests.workflows.conftest import dev_server, until_scheduled, until_timer, workers
from tests.workflows.world import World
from workflows.client import WorkflowGateway
from workflows.names import approval_workflow_id, effect_workflow_id

FOLDER = Path(__file__).parent / "histories"
Play = Callable[[WorkflowEnvironment, World, WorkflowGateway], Awaitable[None]]


async def _end(env: WorkflowEnvironment, world: World) -> None:
    async with asyncio.timeout(60):
        await env.client.get_workflow_handle(world.workflow_id).result()


async def l1_ended(env: WorkflowEnvironment, world: World, _gateway: WorkflowGateway) -> None:
    await _end(env, world)


async def l3_waiting(env: WorkflowEnvironment, world: World, _gateway: WorkflowGateway) -> None:
    await until_timer(env, world)


async def l3_approved(env: WorkflowEnvironment, world: World, gateway: WorkflowGateway) -> None:
    await l3_waiting(env, world, gateway)
    world.approval = ApprovalStatus.APPROVED
    await gateway.signal_approval(world.approval_id)
    await gateway.signal_work_item(world.tenant_id, world.work_item_id)
    await _end(env, world)


async def l3_rejected(env: WorkflowEnvironment, world: World, gateway: WorkflowGateway) -> None:
    await l3_waiting(env, world, gateway)
    world.approval = ApprovalStatus.REJECTED
    await gateway.signal_approval(world.approval_id)
    await gateway.signal_work_item(world.tenant_id, world.work_item_id)
    await _end(env, world)


async def budget_waiting(env: WorkflowEnvironment, world: World, _gateway: WorkflowGateway) -> None:
    await until_timer(env, world)


async def queued_waiting(env: WorkflowEnvironment, world: World, _gateway: WorkflowGateway) -> None:
    await until_scheduled(env, world, "place_run")


async def halted_then_lifted(env: WorkflowEnvironment, world: World, gateway: WorkflowGateway) -> None:
    await until_timer(env, world)
    world.halted = False
    await gateway.signal_work_item(world.tenant_id, world.work_item_id)
    await _end(env, world)


async def running(env: WorkflowEnvironment, world: World, _gateway: WorkflowGateway) -> None:
    await until_scheduled(env, world, "follow_run")


async def cancelled_in_queue(env: WorkflowEnvironment, world: World, gateway: WorkflowGateway) -> None:
    await until_scheduled(env, world, "place_run")
    world.ask_cancel()
    await gateway.signal_work_item(world.tenant_id, world.work_item_id)
    await _end(env, world)


async def staged_waiting(env: WorkflowEnvironment, world: World, _gateway: WorkflowGateway) -> None:
    async with asyncio.timeout(60):
        await world.saw("staged_asked").wait()
    await until_timer(env, world)


async def staged_approved(env: WorkflowEnvironment, world: World, gateway: WorkflowGateway) -> None:
    await staged_waiting(env, world, gateway)
    world.staged_approval = ApprovalStatus.APPROVED
    await gateway.signal_work_item(world.tenant_id, world.work_item_id)
    await _end(env, world)


async def effect_performed(env: WorkflowEnvironment, world: World, gateway: WorkflowGateway) -> None:
    await gateway.start_effect(world.tenant_id, world.action_id)
    async with asyncio.timeout(60):
        await env.client.get_workflow_handle(effect_workflow_id(world.tenant_id, world.action_id)).result()


async def effect_held(env: WorkflowEnvironment, world: World, gateway: WorkflowGateway) -> None:
    await gateway.start_effect(world.tenant_id, world.action_id)
    handle = env.client.get_workflow_handle(effect_workflow_id(world.tenant_id, world.action_id))
    async with asyncio.timeout(60):
        async for event in handle.fetch_history_events(wait_new_event=True):
            if event.HasField("timer_started_event_attributes"):
                return


def _unsettled() -> World:
    """A try without an answer, then one that was not sent, then one that is performed."""
    again = act.SettleOutput(state=act.SettleState.AGAIN, words="nothing was sent")
    return World(settle_answers=[act.SettleOutput(state=act.SettleState.WAIT), again])


SCENES: dict[str, tuple[Play, Callable[[], World], bool]] = {
    "l1_ended": (l1_ended, World, True),
    "l3_waiting": (l3_waiting, lambda: World(level=RiskLevel.L3), True),
    "l3_approved": (l3_approved, lambda: World(level=RiskLevel.L3), True),
    "l3_rejected": (l3_rejected, lambda: World(level=RiskLevel.L3), True),
    "budget_waiting": (budget_waiting, lambda: World(money=False), True),
    "queued_waiting": (queued_waiting, World, False),
    "halted_then_lifted": (halted_then_lifted, lambda: World(halted=True), True),
    "running": (running, lambda: World(run_holds=True), True),
    "cancelled_in_queue": (cancelled_in_queue, World, False),
    "lost_then_ended": (l1_ended, lambda: World(follow_answers=[act.FollowState.GONE]), True),
    "stale_then_ended": (l1_ended, lambda: World(place_answers=[act.PlaceState.STALE]), True),
    "staged_ended": (l1_ended, lambda: World(staged=[uuid4(), uuid4()]), True),
    "staged_waiting": (staged_waiting, lambda: World(staged=[uuid4()], staged_approval=ApprovalStatus.PENDING), True),
    "staged_approved": (staged_approved, lambda: World(staged=[uuid4()], staged_approval=ApprovalStatus.PENDING), True),
}
EFFECTS: dict[str, tuple[Play, Callable[[], World]]] = {
    "performed": (effect_performed, World),
    "held": (effect_held, lambda: World(effects_halted=True)),
    "tried_again": (effect_performed, _unsettled),
}


async def record(release: str, *only: str) -> None:
    """Play every scene (or those that are named) and write the histories of its workflows."""
    folder = FOLDER / release
    folder.mkdir(parents=True, exist_ok=True)
    async with dev_server() as env:
        for name, (play, make) in EFFECTS.items():
            if only and f"effect.{name}" not in only:
                continue
            world = make()
            async with workers(env.client, world) as gateway:
                await play(env, world, gateway)
                workflow_id = effect_workflow_id(world.tenant_id, world.action_id)
                await _write(env.client, folder / f"effect.{name}.json", workflow_id)
            print(f"effect.{name}")
        for name, (play, make, with_runtime) in SCENES.items():
            if only and name not in only:
                continue
            world = make()
            async with workers(env.client, world, runtime=with_runtime) as gateway:
                await gateway.start_work_item(world.tenant_id, world.work_item_id)
                await play(env, world, gateway)
                await _write(env.client, folder / f"work_item.{name}.json", world.workflow_id)
                if world.approval is not None:
                    await _write(env.client, folder / f"approval.{name}.json", approval_workflow_id(world.approval_id))
                world.run_ends.set()
            print(name)


async def _write(client: Client, path: Path, workflow_id: str) -> None:
    history = await client.get_workflow_handle(workflow_id).fetch_history()
    recorded = {"workflow_id": workflow_id, "history": _without_machine(history.to_json_dict())}
    await asyncio.to_thread(path.write_text, json.dumps(recorded, indent=1) + "\n")


def _without_machine(value: Any) -> Any:
    """Without the names of the machine and process that recorded it."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {key: "recorder" if key == "identity" else _without_machine(field) for key, field in fields.items()}
    if isinstance(value, str):
        return re.sub(r"^\d+@[\w.-]+", "recorder", value)  # a sticky queue is named after its process
    if isinstance(value, list):
        return [_without_machine(one) for one in cast("list[Any]", value)]
    return value


if __name__ == "__main__":
    asyncio.run(record(*sys.argv[1:]))
