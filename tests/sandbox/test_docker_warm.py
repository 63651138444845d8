"""Prepared sandboxes: claimed once, fresh, by the runs they fit; and what becomes of them when their runtime dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import docker
import pytest

from sandbox.execution import Execution
from sandbox.link.messages import RunRef
from sandbox.runner import Job
from sandbox.spec import Limits, RunOutcome, RunResult, RunSpec
from sandbox.warm_pool import Prepared, Warm, WarmPool, read_warm
from tests.sandbox.conftest import RealEngine, RealRunner
from tests.sandbox.executions import MIB, python
from tests.sandbox.link_world import Broker, MemoryBackend, new_key, start_broker, until
from tests.sandbox.specs import folder_in
from tests.sandbox.test_docker_restart import RuntimeProcess, broker_place, counting, let_go, ref

pytestmark = pytest.mark.docker

LIMITS = Limits(wall_seconds=60)
MARK = """
import os, pathlib
places = [pathlib.Path(place, "marker") for place in ("/workspace", "/tmp", "/dev/shm")]
print(pathlib.Path("/awgp/in/who").read_text(), os.environ["WHO"], [str(place) for place in places if place.exists()])
for place in places: place.write_text("here")
pathlib.Path("/workspace/out/made").write_text("made")
"""


@asynccontextmanager
async def pool_of(real: RealRunner, *kinds: Warm) -> AsyncGenerator[WarmPool]:
    pool = WarmPool(real.runner, real.base / "mounts", uuid4(), kinds)
    (real.base / "mounts").mkdir(mode=0o700)
    filling = asyncio.create_task(pool.keep())
    try:
        await until(lambda: pool.ready == sum(kind.count for kind in kinds), 60)
        yield pool
    finally:
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)
        await pool.close()


async def claimed(pool: WarmPool, spec: RunSpec) -> Prepared:
    async with asyncio.timeout(60):
        while (member := await pool.claim(spec)) is None:  # noqa: ASYNC110 (it is being filled up)
            await asyncio.sleep(0.05)
    return member


async def run_in(real: RealRunner, pool: WarmPool, spec: RunSpec, who: str) -> tuple[RunResult, bytes, str]:
    member = await claimed(pool, spec)
    run = RunRef(run_id=spec.run_id, attempt=1)
    folder = folder_in(real.base, run)
    folder.adopt(member.mounts)
    (folder.inputs / "who").write_text(who)
    execution = Execution(real.runner, Job(run, spec, folder, lambda: 120.0), prepared=member)
    result = await asyncio.wait_for(execution.run(), 60)
    spool = execution.bridge.spool
    output = b"".join(record.data for record in spool.read(0, spool.end + 1))
    await member.handle.remove()
    spool.close()
    return result, output, member.handle.container_id


async def test_each_claim_is_fresh_and_has_its_own_words(real: RealRunner) -> None:
    async with pool_of(real, Warm(image=real.image, count=2, limits=LIMITS)) as pool:
        used: set[str] = set()
        for number in range(4):
            spec = python(real, MARK, limits=LIMITS, env={"WHO": f"run {number}"})
            result, output, container = await run_in(real, pool, spec, f"input {number}")
            assert output == f"input {number} run {number} []\n".encode()
            assert result.outcome is RunOutcome.SUCCEEDED
            assert [artifact.path for artifact in result.artifacts] == ["made"]
            used.add(container)
        assert len(used) == 4
    assert await real.runner.find() == []


@pytest.mark.parametrize(
    "other",
    [
        {"memory_bytes": 600 * MIB}, {"cpu_nanos": 2 * 10**9}, {"pids": 600}, {"nproc": 65}, {"nofile": 1025},
        {"disk_bytes": 129 * MIB}, {"tmp_bytes": 65 * MIB},
    ],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
async def test_a_run_with_another_limit_is_started_cold(real: RealRunner, other: dict[str, Any]) -> None:
    pool = WarmPool(real.runner, real.base, uuid4(), ())
    guest: Any = Here()
    member = Prepared("x", Warm(image="i", count=1), {"Id": "sha256:1"}, real.base, real.runner.attach("x"), guest)
    spec = python(real, MARK, limits=Limits())
    assert member.fits(spec, "sha256:1")
    assert member.fits(spec.model_copy(update={"limits": Limits(wall_seconds=5, output_bytes=MIB)}), "sha256:1")
    assert not member.fits(spec, "sha256:2")
    assert not member.fits(spec.model_copy(update={"limits": Limits(**other)}), "sha256:1")
    assert await pool.claim(spec) is None


class Here:
    """Stands for a guest that waits."""

    here = True


async def test_the_pool_is_filled_up_and_what_died_in_it_is_not_given_out(real: RealRunner) -> None:
    async with pool_of(real, Warm(image=real.image, count=1, limits=LIMITS)) as pool:
        spec = python(real, MARK, limits=LIMITS)
        first = (await real.runner.find())[0]
        assert first.prepared is not None
        assert pool.knows(first.prepared)
        await real.runner.attach(first.container_id).kill()
        await until(lambda: pool.ready == 0)
        assert await pool.claim(spec) is None
        await until(lambda: pool.ready == 1, 60)
        assert [found.container_id for found in await real.runner.find()] != [first.container_id]


async def test_kill_9_of_the_runtime_with_prepared_sandboxes_around(engine_host: RealEngine, tmp_path: Path) -> None:
    broker: Broker = await start_broker(MemoryBackend(), new_key())
    tenant = uuid4()
    limits = counting(engine_host.image, tenant).limits.model_dump_json()
    warm = f'[{{"image": "{engine_host.image}", "count": 1, "limits": {limits}}}]'
    runtime = RuntimeProcess(broker, tmp_path, engine_host.host, tenant, AWGP_RUNTIME_WARM=warm)
    engine = docker.DockerClient(base_url=engine_host.host)

    def prepared() -> list[str]:
        labels = [f"awgp.tenant={tenant}", "awgp.prepared"]
        return [str(each.id) for each in engine.containers.list(filters={"label": labels}, ignore_removed=True)]

    await runtime.start()
    try:
        await until(lambda: len(prepared()) == 1, 60)
        first = prepared()
        spec = counting(engine_host.image, tenant)
        # One that is listed may not have been heard yet; the pool counts it when its guest has come.
        await until(lambda: "prepared" in runtime.log(), 60)
        await broker_place(broker, spec)
        await until(lambda: broker.backend.output.get(ref(spec), b"") == b"up\n", 60)
        assert [broker.backend.started[ref(spec)]] == first
        await until(lambda: len(prepared()) == 2, 60)
        await runtime.kill()
        second = [each for each in prepared() if each not in first]
        await until(lambda: not broker.hub.connected())
        await runtime.start()
        await until(lambda: broker.hub.connected(), 60)
        assert not set(second) & set(prepared())
        let_go(runtime, spec)
        await until(lambda: ref(spec) in broker.backend.ended, 60)
        result = broker.backend.ended[ref(spec)][0]
        assert result.outcome is RunOutcome.SUCCEEDED, (result, runtime.log())
        assert result.wall_seconds < 60
        assert await runtime.terminate() == 0
        assert engine.containers.list(all=True, filters={"label": f"awgp.tenant={tenant}"}) == []
    finally:
        await runtime.kill()
        engine.close()
        await broker.stop()


async def test_a_prepared_sandbox_does_not_outlive_its_runtime_for_long(real: RealRunner) -> None:
    async with pool_of(real, Warm(image=real.image, count=1, limits=LIMITS)) as pool:
        member = await claimed(pool, python(real, MARK, limits=LIMITS))
        member.guest.abandon()
        assert (await asyncio.wait_for(member.handle.wait(), 60)).exit_code == 143
        await member.discard()


def test_what_is_kept_ready_is_read_and_nonsense_refused() -> None:
    assert read_warm("") == ()
    assert read_warm("a:1=2, b=1") == (Warm(image="a:1", count=2), Warm(image="b", count=1))
    assert read_warm('[{"image": "a", "count": 1, "limits": {"nproc": 8}}]')[0].limits.nproc == 8
    for wrong in ("a", "a=0", "=1", "a=x", "[{}]"):
        with pytest.raises(ValueError):
            read_warm(wrong)
