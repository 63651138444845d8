"""Effects through the whole control plane: real Temporal, PostgreSQL, relay, and control workers that are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from tests.fixtures.effects import VAULT_KEY, Outside
from tests.fixtures.runs import PEM, tamper
from tests.models.services.test_effects import never
from tests.workers.plant import Plant
from tests.workflows.test_forged import temporal
from workflows.client import WorkflowGateway
from workflows.names import effect_workflow_id


@dataclass
class Controls:
    """Control workers as processes of their own."""

    plant: Plant
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def start(self) -> asyncio.subprocess.Process:
        settings = {
            "DATABASE_APP_URL": self.plant.database.app_url,
            "DATABASE_SYSTEM_URL": self.plant.database.system_url,
            "REDIS_URL": self.plant.valkey.url,
            "REDIS_TENANT_KEY": "tenant-key",
            "TEMPORAL_ADDRESS": self.plant.client.service_client.config.target_host,
            "WARRANT_PRIVATE_KEY": PEM,
            "SECRET_STORE_KEY": VAULT_KEY,
            "ALLOW_PRIVATE_CONNECTORS": "true",
            "LOG_LEVEL": "warning",
            "DATA": str(self.plant.base),
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWGP_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "workers.control",
            env=environment | {f"AWGP_{name}": value for name, value in settings.items()},
        )  # fmt: skip
        self.processes.append(process)
        return process

    async def kill(self, process: asyncio.subprocess.Process) -> None:
        process.send_signal(signal.SIGKILL)
        await process.wait()

    async def close(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                await self.kill(process)


@pytest.fixture
async def controls(relay_only: Plant) -> AsyncIterator[Controls]:
    made = Controls(relay_only)
    yield made
    await made.close()


async def until(outside: Outside, action_id: UUID, *wanted: str) -> Any:
    action = await outside.action(action_id)
    try:
        async with asyncio.timeout(120):
            while action.status not in wanted:  # - a row tells, no event
                await asyncio.sleep(0.1)
                action = await outside.action(action_id)
    except TimeoutError:
        raise AssertionError(f"the action is {action.status}: {action.words}") from None
    return action


async def test_a_yes_is_carried_to_the_other_side_once(controls: Controls, outside: Outside) -> None:
    await outside.connector()
    await controls.start()
    action_id = await outside.permitted()
    assert (await until(outside, action_id, "performed", "failed")).status == "performed"
    assert len(outside.receiver.at("/pay")) == 1


@pytest.mark.parametrize("key", [None, "Idempotency-Key"])
async def test_a_worker_killed_while_the_other_side_is_asked(
    controls: Controls, outside: Outside, key: str | None
) -> None:
    """Without a key: asked once, and then people are. With one: asked again, under the same key."""
    await outside.connector(timeout_seconds=30, **({"idempotency_header": key} if key else {}))
    outside.receiver.answers["/pay"] = never
    first = await controls.start()
    action_id = await outside.permitted()
    async with asyncio.timeout(60):
        await outside.receiver.arrived.wait()
    assert (await outside.action(action_id)).status == "performing"
    await controls.kill(first)
    outside.receiver.says("/pay")
    await controls.start()
    # Its time, and the grace after it, are over by the database's clock; the workflow looks again.
    long_ago = "clock_timestamp() - interval '10 min'"
    tamper(outside.database, f"update effect_attempts set started_at = {long_ago} where action_id = %s", action_id)
    action = await until(outside, action_id, "performed", "unknown", "failed")
    if key is None:
        assert action.status == "unknown"
        assert len(outside.receiver.at("/pay")) == 1
        await outside.decide(action.approval_id)
        assert (await until(outside, action_id, "performed")).result is not None
    assert (await outside.action(action_id)).status == "performed"
    assert len(outside.receiver.at("/pay")) == 2
    assert outside.receiver.keys("/pay") == ([str(action_id)] * 2 if key else ["", ""])


async def test_a_forged_completion_makes_nothing_so(controls: Controls, outside: Outside) -> None:
    """Whoever holds Temporal's command line says that it is performed, or starts it again: one request leaves."""
    answers = asyncio.Event()

    async def slow(_request: web.Request) -> web.StreamResponse:
        await answers.wait()
        return web.json_response({"payment": "p-1"})

    await outside.connector(timeout_seconds=60)
    outside.receiver.answers["/pay"] = slow
    await controls.start()
    action_id = await outside.permitted()
    async with asyncio.timeout(60):
        await outside.receiver.arrived.wait()
    client = controls.plant.client
    workflow_id = effect_workflow_id(outside.company.id, action_id)
    history = await client.get_workflow_handle(workflow_id).fetch_history()
    scheduled = [event.activity_task_scheduled_event_attributes for event in history.events]
    activity = next(one.activity_id for one in scheduled if one.activity_type.name == "perform_effect")
    await temporal(
        SimpleNamespace(client=client),  # type: ignore[arg-type]
        "activity", "complete", "-w", workflow_id, "--activity-id", activity, "--result", '{"words": "performed"}',
    )  # fmt: skip
    gateway = WorkflowGateway(client)
    async with asyncio.timeout(60):
        async for event in client.get_workflow_handle(workflow_id).fetch_history_events(wait_new_event=True):
            if event.HasField("timer_started_event_attributes"):
                break  # what was said is not believed: it waits for the try's own end
    await gateway.start_effect(outside.company.id, action_id)
    assert (await outside.action(action_id)).status == "performing", "it was said, and is not so"
    answers.set()
    action = await until(outside, action_id, "performed", "unknown", "failed")
    assert (action.status, action.result["json"]) == ("performed", {"payment": "p-1"})
    assert len(outside.receiver.at("/pay")) == 1
