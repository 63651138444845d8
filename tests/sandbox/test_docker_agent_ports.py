"""An agent's two ports from the inside of a real sandbox, to a server of ours outside."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from aiohttp import web

from sandbox.agent_forwarding import Outside
from sandbox.agent_upstreams import Upstreams
from sandbox.execution import Execution
from sandbox.link.messages import RunRef
from sandbox.runner import Job
from sandbox.spec import Limits, RunOutcome, RunResult
from tests.sandbox.agent_world import WARRANT, Upstream, upstream
from tests.sandbox.conftest import RealEngine, RealRunner
from tests.sandbox.executions import python
from tests.sandbox.link_world import MemoryBackend, new_key, start_broker, until
from tests.sandbox.specs import folder_in, spec_of
from tests.sandbox.test_docker_restart import RuntimeProcess

pytestmark = pytest.mark.docker

MIB = 1024 * 1024


@dataclass
class Agent:
    """A run whose agent has ports, and the server outside."""

    real: RealRunner
    upstream: Upstream
    upstreams: Upstreams
    containers: list[str]

    def job(self, script: str) -> Job:
        spec = python(self.real, script)
        run = RunRef(run_id=spec.run_id, attempt=1)
        outside = Outside(self.upstreams, WARRANT, 1)
        return Job(run, spec, folder_in(self.real.base, run), lambda: 120.0, outside=outside)

    def execution(self, job: Job) -> Execution:
        async def remember(container_id: str, _: object) -> None:
            self.containers.append(container_id)

        return Execution(self.real.runner, job, remember)

    async def run(self, script: str) -> tuple[RunResult, str, Execution]:
        execution = self.execution(self.job(script))
        result = await execution.run()
        return result, output(execution), execution


def output(execution: Execution) -> str:
    spool = execution.bridge.spool
    return b"".join(record.data for record in spool.read(0, spool.end + 1)).decode()


@pytest.fixture
async def agent(real: RealRunner) -> AsyncIterator[Agent]:
    async with upstream() as outside:
        made = Agent(real, outside, Upstreams(outside.url, outside.url), [])
        try:
            yield made
        finally:
            await made.upstreams.close()
            for container in made.containers:
                await real.runner.attach(container).remove()


INVENTORY = """
import os, socket, urllib.request, urllib.error
def ask(url, data=None, method=None):
    request = urllib.request.Request(url, data, {"Authorization": "Bearer forged", "Cookie": "a=b"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer: return answer.status
    except urllib.error.HTTPError as error: return error.code
llm, awgp = os.environ["OPENAI_BASE_URL"], os.environ["AWGP_URL"]
print("chat", ask(llm + "/chat/completions", b"{}"))
print("action", ask(awgp + "/actions", b"{}"))
print("other", ask(llm + "/embeddings", b"{}"), ask(awgp + "/v1/work-items"), ask(awgp + "/llm/v1/models"))
print("saved", ask(awgp + "/artifacts/notes/a.txt", b"from inside", "PUT"))
for port in range(1, 65536):
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0: print("open", port)
print("socket folder", sorted(os.listdir("/awgp/run")))
print("environment", sorted(k for k in os.environ if k.startswith(("OPENAI", "AWGP_"))))
seen = repr(dict(os.environ)) + open("/awgp/run/guest.json").read()
print("warrant inside", "WARRANT" in seen)
""".replace("WARRANT", f'{WARRANT[:5]}" "{WARRANT[5:]}')


async def test_both_ports_are_there_and_nothing_else(agent: Agent) -> None:
    result, text, execution = await agent.run(INVENTORY)
    assert result.outcome is RunOutcome.SUCCEEDED, text
    assert text.splitlines() == [
        "chat 200",
        "action 200",
        "other 404 404 404",
        "saved 201",
        "open 4010",
        "open 4020",
        "socket folder ['awgp.sock', 'guest.json', 'guest.sock', 'llm.sock']",
        "environment ['AWGP_INPUT_DIR', 'AWGP_MCP_URL', 'AWGP_OUTPUT_DIR', 'AWGP_RUN_ID', 'AWGP_URL',"
        " 'AWGP_WORK_ITEM_ID', 'OPENAI_API_BASE', 'OPENAI_API_KEY', 'OPENAI_BASE_URL']",
        "warrant inside False",
    ]
    assert [arrived.target for arrived in agent.upstream.arrived] == ["/llm/v1/chat/completions", "/v1/agent/actions"]
    for arrived in agent.upstream.arrived:
        assert arrived.header("Authorization") == [f"Bearer {WARRANT}"]
        assert not arrived.header("Cookie")
    assert [artifact.path for artifact in result.artifacts] == ["notes/a.txt"]
    kept = execution.bridge.intake.kept["notes/a.txt"]
    assert (execution.bridge.intake.folder / kept.sha256).read_bytes() == b"from inside"


async def test_no_job_of_the_probe_has_ports(agent: Agent) -> None:
    job = replace(agent.job("import os; print('OPENAI_BASE_URL' in os.environ, os.listdir('/awgp/run'))"), outside=None)
    execution = agent.execution(job)
    await execution.run()
    assert output(execution) == "False ['guest.json', 'guest.sock']\n"


EIGHT = """
import hashlib, os, urllib.request
data = os.urandom(8 << 20)
request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", data)
with urllib.request.urlopen(request, timeout=60) as answer:
    back = answer.read()
print(hashlib.sha256(data).hexdigest(), hashlib.sha256(back).hexdigest(), len(back))
"""


async def test_eight_megabytes_go_both_ways(agent: Agent) -> None:
    async def echo(request: web.BaseRequest) -> web.StreamResponse:
        arrived = await agent.upstream.record(request)
        return web.Response(body=arrived.body)

    agent.upstream.answer = echo
    _, text, _ = await agent.run(EIGHT)
    digest = hashlib.sha256(agent.upstream.arrived[0].body).hexdigest()
    assert text.split() == [digest, digest, str(8 * MIB)]


CROWD = """
import os, threading, urllib.request
answers = []
def ask():
    with urllib.request.urlopen(os.environ["AWGP_URL"] + "/context", timeout=60) as answer:
        answers.append(answer.status)
for _ in range(6):
    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
print(len(answers), set(answers))
"""


async def test_hundreds_of_requests_leave_the_limit_on_processes_alone(agent: Agent) -> None:
    _, text, _ = await agent.run(CROWD)
    assert text == "240 {200}\n"


ASKING = """
import os, time, urllib.request
url = os.environ["AWGP_URL"] + "/context"
first = urllib.request.urlopen(url, timeout=60)
print("asked", first.status, flush=True)
while not os.path.exists("/awgp/in/go"): time.sleep(0.02)
print("again", urllib.request.urlopen(url, timeout=60).status, flush=True)
"""


async def test_a_runtime_that_starts_again_is_found_by_the_next_request(agent: Agent) -> None:
    job = agent.job(ASKING)
    first = agent.execution(job)
    running = asyncio.create_task(first.run())
    await until(lambda: output(first) == "asked 200\n", 60)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    first.bridge.spool.close()
    # Nobody listens now; the agent asks, and its guest tries on.
    (job.folder.inputs / "go").touch()
    second = Execution(agent.real.runner, job)
    result = await second.resume(agent.containers[0], datetime.now(UTC))
    assert (result.outcome, output(second)) == (RunOutcome.SUCCEEDED, "asked 200\nagain 200\n")
    assert len(agent.upstream.arrived) == 2


PERSISTENT = """
import os, time, urllib.error, urllib.request
def ask():
    while True:
        try:
            return urllib.request.urlopen(os.environ["OPENAI_BASE_URL"] + "/models", timeout=60).status
        except urllib.error.HTTPError as error:
            if error.code != 503: raise
print("asked", ask(), flush=True)
while not os.path.exists("/awgp/in/go"): time.sleep(0.02)
print("again", ask(), flush=True)
"""


async def test_a_runtime_killed_in_mid_run_goes_on_with_the_same_warrant(
    engine_host: RealEngine, tmp_path: Path
) -> None:
    tenant = uuid4()
    broker = await start_broker(MemoryBackend(), new_key())
    runtime = RuntimeProcess(broker, tmp_path, engine_host.host, tenant)
    try:
        async with upstream() as gateway:
            broker.hub.gateway_url = gateway.url
            limits = Limits(wall_seconds=240)
            spec = spec_of(tenant, image=engine_host.image, entrypoint=("python3", "-c", PERSISTENT), limits=limits)
            run = RunRef(run_id=spec.run_id, attempt=1)
            warrant = broker.warrant(spec)
            await runtime.start()
            async with asyncio.timeout(60):
                permit = await broker.hub.free_place(tenant)
            await broker.hub.place(permit, run_id=spec.run_id, attempt=1, warrant=warrant, spec=spec)
            await until(lambda: broker.backend.output.get(run, b"") == b"asked 200\n", 60)
            await runtime.kill()
            (tmp_path / "mounts" / f"{spec.run_id}.1" / "in" / "go").touch()
            await runtime.start()
            await until(lambda: run in broker.backend.ended, 120)
            assert broker.backend.ended[run][0].outcome is RunOutcome.SUCCEEDED, runtime.log()
            assert bytes(broker.backend.output[run]) == b"asked 200\nagain 200\n"
            assert [arrived.header("Authorization") for arrived in gateway.arrived] == [[f"Bearer {warrant}"]] * 2
    finally:
        await runtime.kill()
        await broker.stop()
