"""Kill -9 of dockerd and of containerd in each phase of a start: waited out, and never run twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sandbox.container_arguments import Host
from sandbox.docker_runner import DockerRunner
from sandbox.engine import CALL_SECONDS, Engine, Result
from sandbox.execution import Execution
from sandbox.failed_start import FailedStarts
from sandbox.image.build import build
from sandbox.link.messages import RunRef
from sandbox.probe import Probe, ProbeSettings
from sandbox.spec import RunOutcome
from tests.sandbox.conftest import RealRunner
from tests.sandbox.executions import Lab, lab, python
from tests.sandbox.link_world import until
from tests.sandbox.private_engine import GUEST, PACKAGES, PrivateEngine
from workers.stack.docker_engine import RUNTIME

pytestmark = [
    pytest.mark.docker,
    # The SDK drops the socket of a connection that was refused without closing it.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

IMAGE, CREATE, START = 1, 2, 3
"""The engine calls of a start, in their order."""
ONCE = "print('ran', flush=True)"


class StruckEngine(Engine):
    """An engine that is struck at one of its calls: before it, or while it is under way."""

    at = 0
    after: float | None = None
    strike: Callable[[], None]
    calls = 0

    async def call(self, work: Callable[[Any], Result], seconds: float = CALL_SECONDS + 5) -> Result:
        self.calls += 1
        if self.calls != self.at:
            return await super().call(work, seconds)
        if self.after is None:
            await asyncio.to_thread(self.strike)
            return await super().call(work, seconds)
        going = asyncio.create_task(super().call(work, seconds))
        await asyncio.sleep(self.after)
        await asyncio.to_thread(self.strike)
        return await going


@dataclass
class Struck:
    """A runner on an engine that is to be struck."""

    real: RealRunner
    private: PrivateEngine
    engine: StruckEngine
    back: asyncio.Task[None] | None = None

    def crash(self) -> None:
        self.private.crash()

    async def bring_back(self) -> None:
        """Once it has been struck, and a moment later: so that somebody has to wait."""
        await until(lambda: self.engine.calls > self.engine.at, 60)
        await asyncio.to_thread(self.private.start)

    async def nothing_is_left(self) -> None:
        await self.real.failed.settled()
        assert await self.real.runner.find() == []
        await until(lambda: not self.private.sandboxes(), 30)


@pytest.fixture
async def struck(crashing_engine: PrivateEngine, tmp_path: Path) -> AsyncIterator[Struck]:
    image = await asyncio.to_thread(build, crashing_engine.host, PACKAGES, lambda text: None)
    engine = StruckEngine(crashing_engine.host, threads=8)
    failed = FailedStarts(engine, str(crashing_engine.containerd))
    probe = Probe(engine, ProbeSettings(image, RUNTIME, tmp_path / "state", tmp_path / "mounts"))
    host = Host(owner=tmp_path.name, docker_runtime=RUNTIME, guest=GUEST.resolve())
    runner = DockerRunner(engine, host, failed, probe)
    made = Struck(RealRunner(runner, engine, image, tmp_path, failed), crashing_engine, engine)
    yield made
    if made.back is not None:
        made.back.cancel()
        await asyncio.gather(made.back, return_exceptions=True)
    engine.close()


@pytest.mark.parametrize(
    ("at", "after"),
    [(IMAGE, None), (CREATE, None), (CREATE, 0.01), (START, None), (START, 0.05), (START, 0.12), (START, 0.2)],
    ids=["before", "before create", "in create", "before start", "in start", "in start, later", "in start, late"],
)
async def test_kill_9_of_the_engine_in_a_start(struck: Struck, at: int, after: float | None) -> None:
    struck.engine.at, struck.engine.after, struck.engine.strike = at, after, struck.crash
    struck.back = asyncio.create_task(struck.bring_back())
    async with lab(struck.real, python(struck.real, ONCE)) as made:
        result = await asyncio.wait_for(made.execution.run(), 120)
        assert result.outcome is RunOutcome.SUCCEEDED, result
        assert made.output() == b"ran\n"
    await struck.back
    await struck.nothing_is_left()


async def test_kill_9_of_the_engine_right_after_a_start(struck: Struck) -> None:
    """The agent runs by then, or is about to: it is followed, or is gone; never started again."""
    struck.engine.at, struck.engine.strike = 4, struck.crash
    struck.back = asyncio.create_task(struck.bring_back())
    async with lab(struck.real, python(struck.real, ONCE)) as made:
        result = await asyncio.wait_for(made.execution.run(), 120)
        assert result.outcome in (RunOutcome.SUCCEEDED, RunOutcome.RUNTIME_GONE), result
        assert made.output() in (b"ran\n", b"")
    await struck.back
    await struck.nothing_is_left()


@pytest.mark.parametrize("at", [CREATE, START])
@pytest.mark.parametrize("after", [None, 0.1], ids=["before", "in it"])
async def test_kill_9_of_containerd_in_a_start(struck: Struck, at: int, after: float | None) -> None:
    struck.engine.at, struck.engine.after, struck.engine.strike = at, after, struck.private.crash_containerd
    async with lab(struck.real, python(struck.real, ONCE)) as made:
        result = await asyncio.wait_for(made.execution.run(), 120)
        assert result.outcome is RunOutcome.SUCCEEDED, result
        assert made.output() == b"ran\n"
    await struck.nothing_is_left()


def _with_lease(made: Lab, lease: Callable[[], float]) -> Execution:
    made.execution.bridge.spool.close()
    return Execution(made.real.runner, replace(made.job, lease=lease))


async def test_it_waits_no_longer_than_its_lease(struck: Struck) -> None:
    struck.private.crash()
    lease = [5.0]
    async with lab(struck.real, python(struck.real, ONCE)) as made:
        execution = _with_lease(made, lambda: lease[0])
        going = asyncio.create_task(execution.run())
        await until(lambda: struck.engine.calls > 2)
        lease[0] = 0.0
        result = await asyncio.wait_for(going, 60)
        assert result.outcome is RunOutcome.LEASE_LOST, result
        execution.bridge.spool.close()
    await asyncio.to_thread(struck.private.start)
    await struck.nothing_is_left()


async def test_who_waits_for_the_engine_can_be_stopped(struck: Struck) -> None:
    struck.private.crash()
    async with lab(struck.real, python(struck.real, ONCE)) as made:
        going = asyncio.create_task(made.execution.run())
        await until(lambda: struck.engine.calls > 2)
        made.execution.stop(RunOutcome.CANCELLED)
        assert (await asyncio.wait_for(going, 60)).outcome is RunOutcome.CANCELLED
    await asyncio.to_thread(struck.private.start)
    await struck.nothing_is_left()


async def test_a_container_that_the_engine_lists_as_only_created_is_gone_not_done(real: RealRunner) -> None:
    """Exit code 0 stands beside *created*: it must never be read as a success."""
    spec = python(real, ONCE)
    run = RunRef(run_id=spec.run_id, attempt=1)
    container: Any = await real.engine.call(
        lambda client: client.containers.create(
            real.image, "true", labels={"awgp.owner": real.base.name, "awgp.run": str(run.run_id), "awgp.attempt": "1"}
        )
    )
    handle = real.runner.attach(container.id)
    assert (await asyncio.wait_for(handle.wait(), 30)).gone
    assert [(found.run, found.started) for found in await real.runner.find()] == [(run, False)]
    await handle.remove()
    with suppress(asyncio.CancelledError):
        await real.failed.settled()
    assert await real.runner.find() == []
