"""The runtime as a process of its own, killed with -9; and the engine under it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from sandbox.engine import Engine
from sandbox.link.hub import LinkTimes
from sandbox.link.messages import KillReason, RunRef
from sandbox.spec import Limits, RunOutcome, RunSpec
from tests.sandbox.conftest import RealEngine
from tests.sandbox.link_world import Broker, MemoryBackend, enrolment, new_key, start_broker, until
from tests.sandbox.private_engine import GUEST, PACKAGES, REPOSITORY, PrivateEngine
from tests.sandbox.specs import spec_of

pytestmark = pytest.mark.docker

COUNTING = """
import time, pathlib
print("up", flush=True)
while not pathlib.Path("/awgp/in/go").exists(): time.sleep(0.05)
for n in range(2000): print(n)
pathlib.Path("/workspace/out").mkdir(exist_ok=True)
pathlib.Path("/workspace/out/done").write_text("done")
"""
COUNTED = b"up\n" + b"".join(b"%d\n" % n for n in range(2000))


class RuntimeProcess:
    """``python -m workers.runtime`` on its state folder."""

    def __init__(self, broker: Broker, base: Path, docker_host: str, tenant_id: UUID, **more: str) -> None:
        self.base = base
        self._environment = os.environ | {
            "AWGP_RUNTIME_BROKER_URL": f"ws://127.0.0.1:{broker.port}",
            "AWGP_RUNTIME_STATE_DIR": str(base / "state"),
            "AWGP_RUNTIME_RUN_DIR": str(base / "mounts"),
            "AWGP_RUNTIME_DOCKER_HOST": docker_host,
            "AWGP_RUNTIME_GUEST_PATH": str(GUEST),
            "AWGP_RUNTIME_ENROLMENT_TOKEN": enrolment(broker.backend, tenant_id),
        } | more
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with (self.base / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "workers.runtime", cwd=REPOSITORY, env=self._environment, stderr=log
            )

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def terminate(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), 30)

    def log(self) -> str:
        return (self.base / "log").read_text()


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    made = await start_broker(MemoryBackend(), new_key())
    yield made
    await made.stop()


def counting(image: str, tenant_id: UUID) -> RunSpec:
    limits = Limits(wall_seconds=120)
    return spec_of(tenant_id, image=image, entrypoint=("python3", "-c", COUNTING), limits=limits)


def ref(spec: RunSpec) -> RunRef:
    return RunRef(run_id=spec.run_id, attempt=1)


def let_go(runtime: RuntimeProcess, spec: RunSpec) -> None:
    (runtime.base / "mounts" / f"{spec.run_id}.1" / "in" / "go").touch()


@pytest.mark.parametrize("ends_while_down", [False, True])
async def test_kill_9_of_the_runtime_in_mid_run(
    broker: Broker, engine_host: RealEngine, tmp_path: Path, ends_while_down: bool
) -> None:
    tenant = uuid4()
    runtime = RuntimeProcess(broker, tmp_path, engine_host.host, tenant)
    await runtime.start()
    try:
        spec = counting(engine_host.image, tenant)
        async with asyncio.timeout(60):
            permit = await broker.hub.free_place(tenant)
        await broker.hub.place(permit, run_id=spec.run_id, attempt=1, warrant=broker.warrant(spec), spec=spec)
        await until(lambda: broker.backend.output.get(ref(spec), b"") == b"up\n", 60)
        container = broker.backend.started[ref(spec)]
        await runtime.kill()
        if ends_while_down:
            let_go(runtime, spec)
        await until(lambda: not broker.hub.connected())
        await runtime.start()
        if not ends_while_down:
            await until(lambda: broker.hub.connected(), 60)
            let_go(runtime, spec)
        await until(lambda: ref(spec) in broker.backend.ended, 60)
        result = broker.backend.ended[ref(spec)][0]
        assert result.outcome is RunOutcome.SUCCEEDED, (result, runtime.log())
        assert bytes(broker.backend.output[ref(spec)]) == COUNTED
        assert [artifact.path for artifact in result.artifacts] == ["done"]
        assert broker.backend.started[ref(spec)] == container
        assert broker.backend.hellos[-1] == (ref(spec),)
        assert await runtime.terminate() == 0
    finally:
        await runtime.kill()


async def test_a_kill_reaches_a_container_that_was_taken_up(
    broker: Broker, engine_host: RealEngine, tmp_path: Path
) -> None:
    tenant = uuid4()
    runtime = RuntimeProcess(broker, tmp_path, engine_host.host, tenant)
    await runtime.start()
    try:
        spec = counting(engine_host.image, tenant)
        await broker_place(broker, spec)
        await until(lambda: broker.backend.output.get(ref(spec), b"") == b"up\n", 60)
        # Told to stop it lets go of its sandboxes, and the next one takes them up.
        assert await runtime.terminate() == 0
        await until(lambda: not broker.hub.connected())
        await runtime.start()
        await until(lambda: broker.hub.connected(), 60)
        assert await broker.hub.kill(spec.run_id, 1, KillReason.HALTED)
        await until(lambda: ref(spec) in broker.backend.ended, 60)
        assert broker.backend.ended[ref(spec)][0].outcome is RunOutcome.HALTED
    finally:
        await runtime.kill()


async def test_a_runtime_that_never_comes_back_leaves_no_sandbox_beyond_its_lease(
    engine_host: RealEngine, tmp_path: Path
) -> None:
    lease = 8.0
    broker = await start_broker(MemoryBackend(), new_key(), times=LinkTimes(lease_seconds=lease, heartbeat_seconds=0.2))
    tenant = uuid4()
    runtime = RuntimeProcess(broker, tmp_path, engine_host.host, tenant)
    engine = Engine(engine_host.host, threads=2)
    await runtime.start()
    renewing = asyncio.create_task(renew_often(broker))
    try:
        spec = counting(engine_host.image, tenant)
        await broker_place(broker, spec)
        await until(lambda: broker.backend.output.get(ref(spec), b"") == b"up\n", 60)
        container = broker.backend.started[ref(spec)]
        # Longer than one lease: the renewals have to reach the guest.
        await asyncio.sleep(lease + 1)
        assert (await state_of(engine, container))["Running"], runtime.log()
        renewing.cancel()
        await runtime.kill()
        killed = time.monotonic()
        while (state := await state_of(engine, container))["Running"]:
            # The database gives the run away 30 s after the lease; by then there must be nothing.
            assert time.monotonic() < killed + lease + 10, "the sandbox has outlived its lease"
            await asyncio.sleep(0.2)
        assert state["ExitCode"] == 143
        assert not state["OOMKilled"]
        await runtime.start()
        await until(lambda: ref(spec) in broker.backend.ended, 60)
        assert broker.backend.ended[ref(spec)][0].outcome is RunOutcome.LEASE_LOST, runtime.log()
        assert await runtime.terminate() == 0
    finally:
        renewing.cancel()
        await runtime.kill()
        engine.close()
        await broker.stop()


async def renew_often(broker: Broker) -> None:
    while True:
        await broker.renew()
        await asyncio.sleep(0.2)


async def state_of(engine: Engine, container: str) -> dict[str, Any]:
    return (await engine.call(lambda client: client.api.inspect_container(container)))["State"]


async def broker_place(broker: Broker, spec: RunSpec) -> None:
    async with asyncio.timeout(60):
        permit = await broker.hub.free_place(spec.tenant_id)
    placed = await broker.hub.place(permit, run_id=spec.run_id, attempt=1, warrant=broker.warrant(spec), spec=spec)
    assert placed.accepted, placed.error


async def test_a_runtime_waits_for_its_engine_and_says_so(broker: Broker, tmp_path: Path) -> None:
    runtime = RuntimeProcess(broker, tmp_path, f"unix://{tmp_path}/none.sock", uuid4())
    await runtime.start()
    try:
        await until(lambda: "waiting_for_docker" in runtime.log(), 30)
        assert runtime.process is not None
        assert runtime.process.returncode is None
        assert await runtime.terminate() == 0
    finally:
        await runtime.kill()


async def test_kill_9_of_the_engine_in_mid_run(
    broker: Broker, engine_host: RealEngine, crashing_engine: PrivateEngine, tmp_path: Path
) -> None:
    from sandbox.image.build import build

    image = await asyncio.to_thread(build, crashing_engine.host, PACKAGES, lambda text: None)
    tenant = uuid4()
    runtime = RuntimeProcess(broker, tmp_path, crashing_engine.host, tenant)
    await runtime.start()
    try:
        spec = counting(image, tenant)
        await broker_place(broker, spec)
        await until(lambda: broker.backend.output.get(ref(spec), b"") == b"up\n", 60)
        crashing_engine.crash()
        let_go(runtime, spec)
        await until(lambda: len(broker.backend.output[ref(spec)]) == len(COUNTED), 60)
        assert ref(spec) not in broker.backend.ended
        await asyncio.to_thread(crashing_engine.start)
        await until(lambda: ref(spec) in broker.backend.ended, 90)
        result = broker.backend.ended[ref(spec)][0]
        assert result.outcome is RunOutcome.SUCCEEDED, (result, runtime.log())
        assert bytes(broker.backend.output[ref(spec)]) == COUNTED
        assert await runtime.terminate() == 0
    finally:
        await runtime.kill()
