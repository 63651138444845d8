"""Orders to stand still, to go on and to leave, and what an attempt goes on from, over the link."""

from pathlib import Path
from uuid import UUID

from sandbox.image_command import continuation_env
from sandbox.link.messages import KillReason, RunRef
from sandbox.spec import Continuation, InputFile, RunOutcome, continuation_digest
from tests.sandbox.link_world import Broker, link_world, until
from tests.sandbox.socket_runner import SocketRunner, sleep_for_ever
from tests.sandbox.specs import spec_of


async def until_paused(broker: Broker, run: RunRef, tenant_id: UUID, *, is_: bool) -> None:
    await until(lambda: (run in broker.hub.paused(tenant_id)) is is_)


async def test_a_run_is_paused_goes_on_and_is_suspended(tmp_path: Path) -> None:
    runner = SocketRunner(sleep_for_ever)
    async with link_world(runner, tmp_path) as (broker, runtime):
        tenant = runtime.identity.names.tenant_id
        spec = spec_of(tenant)
        run = RunRef(run_id=spec.run_id, attempt=1)
        assert not await broker.hub.pause(run)
        assert (await broker.place(spec)).accepted
        await until(lambda: run in broker.backend.started)
        sandbox = next(iter(runner.sandboxes.values()))
        assert await broker.hub.pause(run)
        await until_paused(broker, run, tenant, is_=True)
        assert sandbox.still
        assert await broker.hub.resume(run)
        await until_paused(broker, run, tenant, is_=False)
        assert not sandbox.still
        # One that stands still is let go, so that it can save what it has.
        assert await broker.hub.pause(run)
        await until_paused(broker, run, tenant, is_=True)
        assert await broker.hub.suspend(run)
        await until(lambda: run in broker.backend.ended)
        result = broker.backend.ended[run][0]
        assert result.outcome is RunOutcome.SUSPENDED
        assert result.paused_seconds > 0


async def test_what_an_attempt_goes_on_from_is_in_its_folder(tmp_path: Path) -> None:
    runner = SocketRunner(sleep_for_ever)
    async with link_world(runner, tmp_path) as (broker, runtime):
        digest = broker.backend.keep(b"half done")
        goes_on_from = Continuation(
            state=InputFile(path="state", sha256=digest, size=9), decisions='[{"answer": "permitted"}]'
        )
        spec = spec_of(runtime.identity.names.tenant_id)
        permit = await broker.hub.free_place(spec.tenant_id)
        warrant = broker.warrant(spec, continuation=continuation_digest(goes_on_from))
        placed = await broker.hub.place(
            permit, run_id=spec.run_id, attempt=1, warrant=warrant, spec=spec, continuation=goes_on_from
        )
        assert placed.accepted, placed.error
        run = RunRef(run_id=spec.run_id, attempt=1)
        await until(lambda: run in broker.backend.started)
        folder = runtime.keeper.courses[run].folder.inputs / ".awgp"
        assert (folder / "state").read_bytes() == b"half done"
        assert (folder / "decisions.json").read_text() == goes_on_from.decisions
        assert continuation_env(goes_on_from) == {
            "AWGP_STATE": "/awgp/in/.awgp/state", "AWGP_DECISIONS": "/awgp/in/.awgp/decisions.json",
        }  # fmt: skip
        assert await broker.hub.kill(spec.run_id, 1, KillReason.CANCELLED)
        await until(lambda: run in broker.backend.ended)
