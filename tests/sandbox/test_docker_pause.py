"""A sandbox that stands still, goes on, is asked to leave; for real."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from sandbox.execution import Execution
from sandbox.link.messages import KillReason
from sandbox.spec import Limits, RunOutcome, RunResult
from tests.sandbox.conftest import RealEngine, RealRunner
from tests.sandbox.executions import Lab, lab, python
from tests.sandbox.link_world import MemoryBackend, new_key, start_broker, until
from tests.sandbox.test_docker_restart import RuntimeProcess, broker_place, counting, let_go, ref

pytestmark = pytest.mark.docker

COUNTER = """
import itertools, pathlib, signal, sys, time
def leave(*_):
    pathlib.Path("/workspace/out/partial").write_text("half")
    print("saved", flush=True); sys.exit(0)
signal.signal(signal.SIGTERM, leave)
for n in itertools.count():
    if pathlib.Path("/awgp/in/go").exists(): sys.exit(0)
    print(n, flush=True); time.sleep(0.05)
"""


@asynccontextmanager
async def counting_lab(real: RealRunner, wall_seconds: int = 60) -> AsyncGenerator[tuple[Lab, asyncio.Task[RunResult]]]:
    async with lab(real, python(real, COUNTER, limits=Limits(wall_seconds=wall_seconds))) as made:
        going: asyncio.Task[RunResult] = asyncio.create_task(made.execution.run())
        await until(lambda: made.output().count(b"\n") > 2, 60)
        yield made, going


async def pause(made: Lab) -> None:
    made.execution.pauses.want(True)
    handle = made.real.runner.attach(made.containers[0])
    async with asyncio.timeout(30):
        while not await handle.paused():  # noqa: ASYNC110 (the engine tells nobody)
            await asyncio.sleep(0.05)


def processes_of(container_id: str) -> list[bytes]:
    """Shims and sandboxes of a container, by its id among their words."""
    found: list[bytes] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes()
            if container_id.encode() in words:
                found.append(words)
    return found


async def test_it_stands_still_and_goes_on_with_its_wall_time(real: RealRunner) -> None:
    async with counting_lab(real, wall_seconds=8) as (made, going):
        await pause(made)
        await asyncio.sleep(0.5)  # What was said before it stood arrives.
        said = made.output()
        # Longer than its wall time: none of it counts.
        await asyncio.sleep(9)
        assert made.output() == said
        assert not going.done()
        made.execution.pauses.want(False)
        await until(lambda: len(made.output()) > len(said))
        (made.job.folder.inputs / "go").touch()
        result = await asyncio.wait_for(going, 30)
        assert result.outcome is RunOutcome.SUCCEEDED, result
        assert 9 <= result.paused_seconds < 20
        assert result.wall_seconds < 8
        lines = made.output().split()
        assert lines == [b"%d" % number for number in range(len(lines))]


async def test_a_pause_beyond_the_lease_that_the_guest_was_told_is_survived(real: RealRunner) -> None:
    """The runtime's own lease is renewed meanwhile; the guest hears of it when it wakes."""
    left = [6.0]

    async def remember(container_id: str, _: object) -> None:
        made.containers.append(container_id)

    async with lab(real, python(real, COUNTER, limits=Limits(wall_seconds=60))) as made:
        made.execution.bridge.spool.close()
        made.execution = Execution(real.runner, replace(made.job, lease=lambda: left[0]), remember)
        going: asyncio.Task[RunResult] = asyncio.create_task(made.execution.run())
        await until(lambda: made.output().count(b"\n") > 2, 60)
        await pause(made)
        await asyncio.sleep(7)
        left[0] = 60.0
        made.execution.lease_renewed()
        made.execution.pauses.want(False)
        said = len(made.output())
        await until(lambda: len(made.output()) > said)
        await asyncio.sleep(4)  # Beyond the guest's last chance.
        (made.job.folder.inputs / "go").touch()
        assert (await asyncio.wait_for(going, 30)).outcome is RunOutcome.SUCCEEDED


@pytest.mark.parametrize("outcome", [RunOutcome.CANCELLED, RunOutcome.HALTED, RunOutcome.LEASE_LOST])
async def test_one_that_stands_still_is_killed_where_it_stands(real: RealRunner, outcome: RunOutcome) -> None:
    async with counting_lab(real) as (made, going):
        await pause(made)
        await asyncio.sleep(0.5)
        said = made.output()
        made.execution.stop(outcome)
        result = await asyncio.wait_for(going, 30)
        assert result.outcome is outcome
        assert result.paused_seconds > 0
        assert b"saved" not in made.output()[len(said) :]
        await real.runner.attach(made.containers[0]).remove()
        await real.failed.settled()
        await until(lambda: not processes_of(made.containers[0]), 30)


@pytest.mark.parametrize("paused", [False, True], ids=["running", "standing still"])
async def test_a_suspended_agent_is_asked_and_its_files_are_not_the_items(real: RealRunner, paused: bool) -> None:
    async with counting_lab(real) as (made, going):
        if paused:
            await pause(made)
        made.execution.stop(RunOutcome.SUSPENDED)
        result = await asyncio.wait_for(going, 30)
        assert result.outcome is RunOutcome.SUSPENDED
        assert made.output().endswith(b"saved\n")
        assert result.artifacts == ()


async def test_kill_9_of_the_runtime_leaves_a_paused_one_paused(engine_host: RealEngine, tmp_path: Path) -> None:
    broker = await start_broker(MemoryBackend(), new_key())
    tenant = uuid4()
    more = {"AWGP_RUNTIME_CONTAINERD_SOCKET": engine_host.containerd} if engine_host.containerd else {}
    runtime = RuntimeProcess(broker, tmp_path, engine_host.host, tenant, **more)
    await runtime.start()
    try:
        spec = counting(engine_host.image, tenant)
        await broker_place(broker, spec)
        await until(lambda: broker.backend.output.get(ref(spec), b"") == b"up\n", 60)
        assert await broker.hub.pause(ref(spec))
        await until(lambda: broker.hub.paused(tenant) == {ref(spec)}, 60)
        await runtime.kill()
        await until(lambda: not broker.hub.connected())
        await runtime.start()
        await until(lambda: broker.hub.paused(tenant) == {ref(spec)}, 60)
        let_go(runtime, spec)
        assert await broker.hub.resume(ref(spec))
        await until(lambda: ref(spec) in broker.backend.ended, 60)
        result = broker.backend.ended[ref(spec)][0]
        assert result.outcome is RunOutcome.SUCCEEDED, (result, runtime.log())
        assert result.paused_seconds > 0
        # And one that is killed while it stands still, by order.
        spec = counting(engine_host.image, tenant)
        await broker_place(broker, spec)
        await until(lambda: broker.backend.output.get(ref(spec), b"") == b"up\n", 60)
        assert await broker.hub.pause(ref(spec))
        await until(lambda: broker.hub.paused(tenant) == {ref(spec)}, 60)
        assert await broker.hub.kill(spec.run_id, 1, KillReason.CANCELLED)
        await until(lambda: ref(spec) in broker.backend.ended, 60)
        assert broker.backend.ended[ref(spec)][0].outcome is RunOutcome.CANCELLED
        if engine_host.containerd:
            await until(lambda: not processes_of(broker.backend.started[ref(spec)]), 30)
        assert await runtime.terminate() == 0
    finally:
        await runtime.kill()
        await broker.stop()
