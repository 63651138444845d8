"""Agents that other people's libraries run, unchanged, inside the fence: no network, two addresses, no key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from api.gateway.scripted import ScriptedUpstream
from sandbox.agent_forwarding import Outside
from sandbox.agent_upstreams import Upstreams
from sandbox.execution import Execution
from sandbox.image.agents import NAMES, build_agent_image
from sandbox.link.messages import RunRef
from sandbox.runner import Job
from sandbox.spec import Limits, RunOutcome
from tests.gateway.conftest import serving
from tests.sandbox.agent_world import WARRANT, Upstream, upstream
from tests.sandbox.conftest import RealEngine, RealRunner
from tests.sandbox.private_engine import PACKAGES
from tests.sandbox.specs import folder_in, spec_of

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

ITEMS = ("paper", "toner", "pens", "folders", "staples")
SUM = "Toner is out; ordering it was refused."
Ends = Callable[..., Awaitable[Any]]


def task(name: str) -> str:
    """What the scripted upstream plays stands in the task; an agent does not know."""
    steps: list[dict[str, Any]] = [{"tool": "count", "arguments": {"item": item}} for item in ITEMS]
    steps.append({"tool": "order", "arguments": {"item": "toner"}})
    if name == "smolagents":
        steps.append({"tool": "final_answer", "arguments": {"answer": SUM}})
    else:
        steps += [{"text": "All counted."}, {"text": SUM}]
    return f"Count the stock and order what has run out.\n\n```awgp-script\n{json.dumps(steps)}\n```"


class Model:
    """The scripted upstream, under the gateway's paths."""

    def __init__(self, log: Path) -> None:
        self._scripted = ScriptedUpstream(log, api_key=WARRANT)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Ends, send: Ends) -> None:
        await self._scripted({**scope, "path": scope["path"].removeprefix("/llm")}, receive, send)


@pytest.fixture
async def control_plane() -> AsyncIterator[Upstream]:
    """Denies whatever is asked."""
    async with upstream() as made:

        async def deny(request: web.BaseRequest) -> web.StreamResponse:
            await made.record(request)
            return web.json_response({"id": "0192", "status": "denied", "reason": "no budget for toner"})

        made.answer = deny
        yield made


@pytest.mark.parametrize("name", NAMES)
async def test_an_unmodified_agent_works_to_its_end(
    name: str, engine_host: RealEngine, real: RealRunner, control_plane: Upstream, tmp_path: Path
) -> None:
    image = await asyncio.to_thread(build_agent_image, engine_host.host, PACKAGES, lambda text: None, name)
    environment = {"AWGP_PARAMETERS": json.dumps({"task": task(name)})}
    spec = spec_of(image=image, env=environment, limits=Limits(wall_seconds=240))
    run = RunRef(run_id=spec.run_id, attempt=1)
    containers: list[str] = []

    async def remember(container_id: str, _: object) -> None:
        containers.append(container_id)

    async with serving(Model(tmp_path / "calls")) as gateway:
        upstreams = Upstreams(gateway, control_plane.url)
        job = Job(run, spec, folder_in(real.base, run), lambda: 300.0, outside=Outside(upstreams, WARRANT, 1))
        execution = Execution(real.runner, job, remember)
        try:
            result = await execution.run()
        finally:
            await upstreams.close()
            for container in containers:
                await real.runner.attach(container).remove()
    spool = execution.bridge.spool
    output = b"".join(record.data for record in spool.read(0, spool.end + 1)).decode()
    assert result.outcome is RunOutcome.SUCCEEDED, (result.detail, output)
    for item in ITEMS:
        assert f"tool count {item}" in output
    assert "order toner: denied (no budget for toner)" in output
    assert int(output.rpartition("streamed ")[2].split()[0]) > 1, output
    _check_outside(control_plane, tmp_path / "calls", streamed=name == "smolagents")


def _check_outside(control_plane: Upstream, calls: Path, *, streamed: bool) -> None:
    (asked,) = control_plane.arrived
    assert (asked.method, asked.target) == ("POST", "/v1/agent/actions")
    assert asked.header("Authorization") == [f"Bearer {WARRANT}"]
    assert json.loads(asked.body)["target"] == "toner"
    lines = [json.loads(line) for line in calls.read_text().splitlines()]
    assert all(line["status"] == 200 and line["whole"] for line in lines)
    # Five counts, one order and the end; then the sum as a stream, where the library does not stream each step.
    assert [line["stream"] for line in lines] == ([True] * 7 if streamed else [False] * 7 + [True])
