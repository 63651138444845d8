import asyncio
import base64
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sandbox.identity import Identity
from sandbox.link.backend import KillOrder, RuntimeUnavailableError
from sandbox.link.enrolment import EnrolmentRefusedError, identity_of
from sandbox.link.messages import EnrolResponse, KillReason, RunRef
from sandbox.null_runner import NullRunner
from sandbox.spec import InputFile, RunOutcome, RunSpec
from tests.sandbox.link_world import (
    Broker,
    MemoryBackend,
    Runtime,
    enrolment,
    link_world,
    new_key,
    start_broker,
    start_runtime,
    until,
)
from tests.sandbox.socket_runner import SocketRunner, say_and_leave, sleep_for_ever
from tests.sandbox.specs import spec_of


def ref(spec: RunSpec, attempt: int = 1) -> RunRef:
    return RunRef(run_id=spec.run_id, attempt=attempt)


def spec_for(runtime: Runtime, **fields: object) -> RunSpec:
    return spec_of(runtime.identity.names.tenant_id, **fields)


async def ended(broker: Broker, spec: RunSpec, attempt: int = 1) -> RunOutcome:
    await until(lambda: ref(spec, attempt) in broker.backend.ended)
    return broker.backend.ended[ref(spec, attempt)][0].outcome


async def test_the_null_runner_succeeds_and_says_that_it_did_nothing(tmp_path: Path) -> None:
    async with link_world(NullRunner(), tmp_path) as (broker, runtime):
        spec = spec_for(runtime)
        assert (await broker.place(spec)).accepted
        assert await ended(broker, spec) is RunOutcome.SUCCEEDED
        assert broker.backend.ended[ref(spec)][0].simulated
        await until(lambda: not runtime.keeper.courses)
        assert list((tmp_path / "runs").iterdir()) == []


async def test_output_artifacts_and_inputs_travel(tmp_path: Path) -> None:
    runner = SocketRunner(say_and_leave)
    async with link_world(runner, tmp_path) as (broker, runtime):
        digest = broker.backend.keep(b"in")
        spec = spec_for(runtime, inputs=(InputFile(path="a/b.csv", sha256=digest, size=2),))
        await broker.place(spec)
        assert await ended(broker, spec) is RunOutcome.SUCCEEDED
        result = broker.backend.ended[ref(spec)][0]
        assert bytes(broker.backend.output[ref(spec)]) == b"hello\n"
        assert broker.backend.blobs[result.artifacts[0].sha256] == b"{}"
        assert result.cpu_seconds == 0.5
        assert broker.backend.started[ref(spec)].startswith("socket-")


async def test_what_a_sandbox_uses_is_said_while_it_runs_and_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.execution._SAMPLE_SECONDS", 0.01)
    monkeypatch.setattr("sandbox.link.reporter._USAGE_SECONDS", 0.01)
    async with link_world(SocketRunner(sleep_for_ever), tmp_path) as (broker, runtime):
        spec = spec_for(runtime)
        await broker.place(spec)
        await until(lambda: broker.backend.used)
        await broker.hub.kill(spec.run_id, 1, KillReason.CANCELLED)
        assert await ended(broker, spec) is RunOutcome.CANCELLED
        told = broker.backend.used
        assert [(used.run_id, used.attempt, used.cpu_seconds) for used in told] == [(spec.run_id, 1, 0.5)]


async def test_an_input_that_is_not_what_its_digest_says_starts_nothing(tmp_path: Path) -> None:
    runner = SocketRunner(say_and_leave)
    async with link_world(runner, tmp_path) as (broker, runtime):
        digest = broker.backend.keep(b"in")
        broker.backend.blobs[digest] = b"IN"
        missing = "0" * 64
        for sha256 in (digest, missing):
            spec = spec_for(runtime, inputs=(InputFile(path="a", sha256=sha256, size=2),))
            await broker.place(spec)
            assert await ended(broker, spec) is RunOutcome.START_FAILED
        assert runner.starts == []


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": str(uuid4())},
        {"run": str(uuid4())},
        {"attempt": 2},
        {"spec_digest": "0" * 64},
        {"claim_before": 1000},
        {"aud": "effect"},
        {"iss": "other"},
        {"max_seconds": 1},
        {"assistant": str(uuid4())},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_a_warrant_for_anything_else_runs_nothing(tmp_path: Path, change: dict[str, Any]) -> None:
    runner = SocketRunner(say_and_leave)
    async with link_world(runner, tmp_path) as (broker, runtime):
        spec = spec_for(runtime)
        placed = await broker.place(spec, warrant=broker.warrant(spec, **change))
        assert not placed.accepted
        assert runner.starts == []
        assert runtime.keeper.courses == {}


async def test_a_forged_or_altered_warrant_runs_nothing(tmp_path: Path) -> None:
    runner = SocketRunner(say_and_leave)
    async with link_world(runner, tmp_path) as (broker, runtime):
        spec = spec_for(runtime)
        good = broker.warrant(spec)
        head, body, signature = good.split(".")
        none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
        for bad in (
            broker.warrant(spec, key=new_key()),
            f"{head}.{body[:-2]}AA.{signature}",
            f"{none}.{body}.",
            "nonsense",
        ):
            assert not (await broker.place(spec, warrant=bad)).accepted
        assert runner.starts == []


async def test_one_warrant_never_runs_twice_not_even_after_a_restart(tmp_path: Path) -> None:
    runner = SocketRunner(say_and_leave)
    async with link_world(runner, tmp_path) as (broker, runtime):
        spec = spec_for(runtime)
        warrant = broker.warrant(spec)
        assert (await broker.place(spec, warrant=warrant)).accepted
        await ended(broker, spec)
        await until(lambda: not runtime.keeper.courses)
        assert not (await broker.place(spec, warrant=warrant)).accepted
        await runtime.stop()
        await until(lambda: not broker.hub.connected())
        again = await start_runtime(broker, runner, tmp_path, token=None)
        assert not (await broker.place(spec, warrant=warrant)).accepted
        assert len(runner.starts) == 1
        await again.stop()


async def test_a_kill_reaches_the_sandbox_and_names_its_reason(tmp_path: Path) -> None:
    async with link_world(SocketRunner(sleep_for_ever), tmp_path) as (broker, runtime):
        for reason in (KillReason.HALTED, KillReason.LEASE_LOST):
            spec = spec_for(runtime)
            await broker.place(spec)
            await until(lambda spec=spec: ref(spec) in broker.backend.output)
            assert await broker.hub.kill(spec.run_id, 1, reason)
            assert await ended(broker, spec) == reason.value
        assert not await broker.hub.kill(uuid4(), 1, KillReason.CANCELLED)


async def test_a_runtime_that_comes_back_goes_on_and_runs_nothing_twice(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def agent(sandbox: object) -> int:
        await go.wait()
        return await say_and_leave(sandbox)  # type: ignore[arg-type]

    runner = SocketRunner(agent)
    async with link_world(runner, tmp_path) as (broker, runtime):
        spec = spec_for(runtime)
        await broker.place(spec)
        await until(lambda: ref(spec) in broker.backend.started)
        await runtime.stop()
        go.set()
        again = await start_runtime(broker, runner, tmp_path, token=None)
        assert await ended(broker, spec) is RunOutcome.SUCCEEDED
        assert broker.backend.hellos[-1] == (ref(spec),)
        assert runner.starts == [ref(spec)]
        assert bytes(broker.backend.output[ref(spec)]) == b"hello\n"
        await again.stop()


async def test_a_recorded_placement_that_never_started_says_so(tmp_path: Path) -> None:
    class Stuck(SocketRunner):
        async def start(self, job: object) -> None:  # type: ignore[override]
            await asyncio.Event().wait()

    async with link_world(Stuck(say_and_leave), tmp_path) as (broker, runtime):  # type: ignore[arg-type]
        spec = spec_for(runtime)
        await broker.place(spec)
        await runtime.stop()
        again = await start_runtime(broker, SocketRunner(say_and_leave), tmp_path, token=None)
        assert await ended(broker, spec) is RunOutcome.NOT_STARTED
        await again.stop()


async def test_a_sandbox_that_is_gone_after_a_restart_says_so(tmp_path: Path) -> None:
    async with link_world(SocketRunner(sleep_for_ever), tmp_path) as (broker, runtime):
        spec = spec_for(runtime)
        await broker.place(spec)
        await until(lambda: ref(spec) in broker.backend.output)
        await runtime.stop()
        again = await start_runtime(broker, SocketRunner(sleep_for_ever), tmp_path, token=None)
        assert await ended(broker, spec) is RunOutcome.RUNTIME_GONE
        await again.stop()


async def test_a_broker_that_goes_and_comes_back_gets_everything(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def agent(sandbox: object) -> int:
        await go.wait()
        return await say_and_leave(sandbox)  # type: ignore[arg-type]

    async with link_world(SocketRunner(agent), tmp_path) as (broker, runtime):
        spec = spec_for(runtime)
        await broker.place(spec)
        await until(lambda: ref(spec) in broker.backend.started)
        await broker.stop()
        go.set()
        await until(lambda: runtime.keeper.courses[ref(spec)].result is not None)
        back = await start_broker(broker.backend, broker.key, broker.port)
        assert await ended(back, spec) is RunOutcome.SUCCEEDED
        assert bytes(broker.backend.output[ref(spec)]) == b"hello\n"
        await until(lambda: not runtime.keeper.courses)
        await back.stop()


async def test_slow_storing_delays_neither_heartbeats_nor_the_agent(tmp_path: Path) -> None:
    async with link_world(SocketRunner(say_and_leave), tmp_path) as (broker, runtime):
        broker.backend.storing.clear()
        spec = spec_for(runtime)
        await broker.place(spec)
        await until(lambda: runtime.keeper.courses[ref(spec)].result is not None)
        broker.hub.take_heard()
        await until(lambda: broker.hub.take_heard())
        assert ref(spec) not in broker.backend.ended
        broker.backend.storing.set()
        assert await ended(broker, spec) is RunOutcome.SUCCEEDED


async def test_a_run_that_must_not_live_is_ended_at_hello(tmp_path: Path) -> None:
    runner = SocketRunner(sleep_for_ever)
    async with link_world(runner, tmp_path) as (broker, runtime):
        spec = spec_for(runtime)
        await broker.place(spec)
        await until(lambda: ref(spec) in broker.backend.output)
        broker.backend.orders.append(KillOrder(ref(spec), KillReason.HALTED))
        await broker.hub.close()
        assert await ended(broker, spec) is RunOutcome.HALTED


async def test_places_are_counted_and_waited_for(tmp_path: Path) -> None:
    async with link_world(SocketRunner(sleep_for_ever), tmp_path, capacity=2) as (broker, runtime):
        tenant = runtime.identity.names.tenant_id
        first = await asyncio.wait_for(broker.hub.free_place(tenant), 10)
        second = broker.hub.try_free_place(tenant)
        assert second is not None
        assert broker.hub.try_free_place(tenant) is None
        assert broker.hub.try_free_place(uuid4()) is None
        waiting = asyncio.create_task(broker.hub.free_place(tenant))
        given_up = asyncio.create_task(broker.hub.free_place(tenant))
        await asyncio.sleep(0)
        given_up.cancel()
        second.release()
        second.release()
        third = await asyncio.wait_for(waiting, 10)
        spec = spec_for(runtime)
        await broker.hub.place(third, run_id=spec.run_id, attempt=1, warrant=broker.warrant(spec), spec=spec)
        assert broker.hub.try_free_place(tenant) is None
        first.release()
        await until(lambda: len(runtime.keeper.courses) == 1)
        await runtime.stop()
        await until(lambda: not broker.hub.connected())
        assert broker.hub.try_free_place(tenant) is None


async def test_a_permit_of_a_runtime_that_left_is_refused_at_once(tmp_path: Path) -> None:
    async with link_world(NullRunner(), tmp_path) as (broker, runtime):
        spec = spec_for(runtime)
        permit = await asyncio.wait_for(broker.hub.free_place(spec.tenant_id), 10)
        await runtime.stop()
        await until(lambda: not broker.hub.connected())
        assert not permit.usable
        with pytest.raises(RuntimeUnavailableError):
            await broker.hub.place(permit, run_id=spec.run_id, attempt=1, warrant=broker.warrant(spec), spec=spec)


async def test_enrolment_takes_a_token_once_and_keeps_its_key_to_itself(tmp_path: Path) -> None:
    backend = MemoryBackend()
    broker = await start_broker(backend, new_key())
    tenant = uuid4()
    token = enrolment(backend, tenant)
    identity = await identity_of(tmp_path / "a", broker.url, "a", token)
    assert identity.names.tenant_id == tenant
    assert (tmp_path / "a" / "key.pem").stat().st_mode & 0o777 == 0o600
    again = await identity_of(tmp_path / "a", broker.url, "a", None)
    assert again.names == identity.names
    for bad in (token, None):
        with pytest.raises(EnrolmentRefusedError):
            await identity_of(tmp_path / "b", broker.url, "b", bad)
    await broker.stop()


async def test_nobody_connects_under_another_name(tmp_path: Path) -> None:
    async with link_world(NullRunner(), tmp_path) as (broker, runtime):
        names = runtime.identity.names
        foreign = EnrolResponse(runtime_id=names.runtime_id, tenant_id=uuid4())
        (tmp_path / "x").mkdir()
        for identity in (
            Identity(names, Ed25519PrivateKey.generate()),
            Identity(foreign, runtime.identity.key),
        ):
            impostor = await start_impostor(broker, identity, tmp_path / "x")
            await until(lambda identity=identity: any(r[1] == identity.names.tenant_id for r in broker.backend.refused))
            await impostor.stop()
        assert {r.runtime_id for r in broker.hub.connected()} == {names.runtime_id}


async def start_impostor(broker: Broker, identity: Identity, base: Path) -> Runtime:
    from sandbox.keeper import RunKeeper
    from sandbox.link.blob_client import BlobClient
    from sandbox.link.client import RuntimeLink
    from sandbox.link.lease import Leases
    from sandbox.placement_store import PlacementStore

    blobs, runner = BlobClient(broker.url), NullRunner()
    store = PlacementStore(base, base / "mounts")
    keeper = RunKeeper(runner, store, blobs, Leases(), tenant_id=identity.names.tenant_id, capacity=1)
    link = RuntimeLink(broker.url, identity, keeper, blobs, await runner.facts())
    return Runtime(keeper, asyncio.create_task(link.run()), identity)


async def test_blobs_need_a_live_session(tmp_path: Path) -> None:
    async with link_world(NullRunner(), tmp_path) as (broker, _), aiohttp.ClientSession() as http:
        digest = broker.backend.keep(b"secret")
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            async with http.get(f"{broker.url}/v1/runtime/blobs/{digest}", headers=headers) as answer:
                assert answer.status == 401
            async with http.put(f"{broker.url}/v1/runtime/blobs/{digest}", headers=headers) as answer:
                assert answer.status == 401
