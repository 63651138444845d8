"""What the link brings to an agent's two ports: the run's warrant, both addresses, and both again after a restart."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import aiohttp
import pytest

from sandbox.agent_forwarding import Outside
from sandbox.agent_ports import LISTEN
from sandbox.agent_upstreams import MOST_CONNECTIONS, Upstreams, connections_a_run
from sandbox.container_arguments import guest_config
from sandbox.image_command import ImageCommand
from sandbox.link.messages import RunRef
from sandbox.run_folder import RunFolder
from sandbox.runner import Job
from sandbox.spec import RunSpec
from tests.sandbox.agent_world import Arrived, upstream
from tests.sandbox.link_world import link_world, start_runtime, until
from tests.sandbox.socket_runner import SocketRunner, sleep_for_ever
from tests.sandbox.specs import spec_of


async def ask(folder: Path) -> int:
    """One request as the guest would carry it; tried until the runtime listens."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    connector = aiohttp.UnixConnector(f"/proc/self/fd/{descriptor}/llm.sock")
    try:
        async with aiohttp.ClientSession(connector=connector) as http, asyncio.timeout(20):
            while True:
                try:
                    async with http.post("http://127.0.0.1/llm/v1/chat/completions", json={}) as answer:
                        return answer.status
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.02)
    finally:
        os.close(descriptor)


async def test_requests_carry_the_warrant_of_their_run_also_after_a_restart(tmp_path: Path) -> None:
    runner = SocketRunner(sleep_for_ever)
    async with (
        upstream() as gateway,
        link_world(runner, tmp_path, upstreams=Upstreams(gateway.url)) as (broker, runtime),
    ):
        spec = spec_of(runtime.identity.names.tenant_id)
        warrant = broker.warrant(spec)
        await broker.place(spec, warrant=warrant)
        await until(lambda: RunRef(run_id=spec.run_id, attempt=1) in broker.backend.started)
        folder = tmp_path / "mounts" / f"{spec.run_id}.1" / "run"
        assert await ask(folder) == 200
        await runtime.stop()
        assert runtime.keeper.upstreams is not None
        await runtime.keeper.upstreams.close()
        upstreams = Upstreams(gateway.url)
        again = await start_runtime(broker, runner, tmp_path, token=None, upstreams=upstreams)
        assert await ask(folder) == 200
        await again.stop()
        await upstreams.close()
        assert [of(arrived) for arrived in gateway.arrived] == [(warrant, "1")] * 2
        record = tmp_path / "runs" / f"{spec.run_id}.1" / "placement.json"
        assert warrant in record.read_text()
        assert record.stat().st_mode & 0o077 == 0, "others could read the warrant"
        assert warrant not in "".join(path.read_text() for path in folder.iterdir() if path.is_file())


def of(arrived: Arrived) -> tuple[str, str]:
    return arrived.header("Authorization")[0].removeprefix("Bearer "), arrived.header("X-Awgp-Run-Attempt")[0]


async def test_the_broker_says_where_requests_go(tmp_path: Path) -> None:
    upstreams = Upstreams()
    async with upstream() as gateway, link_world(SocketRunner(sleep_for_ever), tmp_path) as (broker, runtime):
        await runtime.stop()
        broker.hub.gateway_url = gateway.url
        again = await start_runtime(broker, SocketRunner(sleep_for_ever), tmp_path, token=None, upstreams=upstreams)
        spec = spec_of(again.identity.names.tenant_id)
        await broker.place(spec)
        await until(lambda: RunRef(run_id=spec.run_id, attempt=1) in broker.backend.started)
        assert await ask(tmp_path / "mounts" / f"{spec.run_id}.1" / "run") == 200
        await again.stop()
        await upstreams.close()


@pytest.mark.parametrize(
    ("descriptors", "capacity", "each"), [(1 << 20, 4, MOST_CONNECTIONS), (1024, 4, 96), (1024, 256, 16), (256, 1, 16)]
)
def test_all_runs_together_leave_the_runtime_its_descriptors(descriptors: int, capacity: int, each: int) -> None:
    assert connections_a_run(descriptors, capacity) == each


def test_what_the_runtime_says_goes_before_what_image_and_assistant_say(tmp_path: Path) -> None:
    spec: RunSpec = spec_of(env={"OPENAI_BASE_URL": "http://elsewhere", "OPENAI_API_KEY": "k", "OTHER": "1"})
    command = ImageCommand(("agent",), dict(spec.env), "/", ())
    run = RunRef(run_id=spec.run_id, attempt=1)
    job = Job(run, spec, RunFolder.of(tmp_path, tmp_path, run), lambda: 60.0, outside=Outside(Upstreams(), "secret", 1))
    config = guest_config(job, command)
    environment = config["env"]
    assert isinstance(environment, dict)
    assert environment["OPENAI_BASE_URL"] == "http://127.0.0.1:4010/llm/v1"
    assert (environment["OPENAI_API_KEY"], environment["OTHER"]) == ("awgp-inside", "1")
    assert config["listen"] == LISTEN
    assert "secret" not in json.dumps(config) + repr(job)
