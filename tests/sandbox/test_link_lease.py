"""The lease over the link: who counts it, who is told, and what is reported when it is over."""

import asyncio
import contextlib
from pathlib import Path

from sandbox.link.lease import boot_clock
from sandbox.link.messages import RunRef
from sandbox.spec import RunOutcome, RunSpec
from tests.sandbox.link_world import Broker, Runtime, link_world, start_runtime, until
from tests.sandbox.socket_runner import SocketRunner, SocketSandbox, sleep_for_ever
from tests.sandbox.specs import spec_of


def ref(spec: RunSpec) -> RunRef:
    return RunRef(run_id=spec.run_id, attempt=1)


def spec_for(runtime: Runtime) -> RunSpec:
    return spec_of(runtime.identity.names.tenant_id)


async def ended(broker: Broker, spec: RunSpec) -> RunOutcome:
    await until(lambda: ref(spec) in broker.backend.ended)
    return broker.backend.ended[ref(spec)][0].outcome


async def test_the_lease_ends_the_sandbox_when_nobody_renews(tmp_path: Path) -> None:
    ahead = 0.0
    runner = SocketRunner(sleep_for_ever)
    async with link_world(runner, tmp_path, clock=lambda: boot_clock() + ahead) as (broker, runtime):
        spec = spec_for(runtime)
        await broker.place(spec)
        await until(lambda: ref(spec) in broker.backend.output)
        ahead = 59.0
        await broker.renew()
        ahead = 61.0
        assert await ended(broker, spec) is RunOutcome.LEASE_LOST


async def test_a_renewed_lease_goes_on(tmp_path: Path) -> None:
    ahead = 0.0
    async with link_world(SocketRunner(sleep_for_ever), tmp_path, clock=lambda: boot_clock() + ahead) as (
        broker,
        runtime,
    ):
        spec = spec_for(runtime)
        await broker.place(spec)
        await until(lambda: ref(spec) in broker.backend.output)
        first = runtime.keeper.deadline(ref(spec))
        ahead = 50.0

        async def renewed() -> None:
            while (runtime.keeper.deadline(ref(spec)) or 0) < (first or 0) + 45:
                await broker.renew()
                await asyncio.sleep(0.05)

        await asyncio.wait_for(renewed(), 10)
        ahead = 100.0
        runtime.keeper.end_expired()
        assert runtime.keeper.courses[ref(spec)].result is None


async def test_a_renewal_reaches_the_guest_and_so_does_what_a_new_runtime_finds(tmp_path: Path) -> None:
    ahead = 0.0
    told: asyncio.Queue[float] = asyncio.Queue()

    async def agent(sandbox: SocketSandbox) -> int:
        while True:
            guest = await sandbox.connect()
            with contextlib.suppress(AssertionError, TimeoutError):
                while True:
                    told.put_nowait(float(str((await guest.expect(b"L"))["seconds"])))

    async def until_told(least: float, most: float) -> None:
        while not least < await asyncio.wait_for(told.get(), 20) <= most:
            pass

    runner = SocketRunner(agent)
    async with link_world(runner, tmp_path, clock=lambda: boot_clock() + ahead) as (broker, runtime):
        spec = spec_for(runtime)
        await broker.place(spec)
        await until_told(50, 60)
        ahead = 40.0
        renewing = asyncio.create_task(renew_often(broker))
        await until_told(50, 60)
        renewing.cancel()
        await runtime.stop()
        ahead = 70.0
        # Renewed at 40 to 100, so 30 are left to the one that comes back at 70.
        again = await start_runtime(broker, runner, tmp_path, token=None, clock=lambda: boot_clock() + ahead)
        await until_told(10, 31)
        await again.stop()


async def renew_often(broker: Broker) -> None:
    while True:
        await broker.renew()
        await asyncio.sleep(0.1)


async def test_a_sandbox_that_its_guest_ended_with_the_lease_is_reported_as_lost(tmp_path: Path) -> None:
    ahead = 0.0
    alone = asyncio.Event()

    async def agent(sandbox: SocketSandbox) -> int:
        await sandbox.connect()
        await alone.wait()
        return 143

    runner = SocketRunner(agent)
    async with link_world(runner, tmp_path, clock=lambda: boot_clock() + ahead) as (broker, runtime):
        spec = spec_for(runtime)
        await broker.place(spec)
        await until(lambda: ref(spec) in broker.backend.started)
        await runtime.stop()
        alone.set()
        ahead = 61.0
        again = await start_runtime(broker, runner, tmp_path, token=None, clock=lambda: boot_clock() + ahead)
        assert await ended(broker, spec) is RunOutcome.LEASE_LOST
        assert runner.starts == [ref(spec)]
        await again.stop()
