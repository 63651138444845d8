"""A work item's whole life through real processes' code: brokers, relay, control worker, host runtimes."""

from __future__ import annotations

import asyncio

from models.services import halt, run_logs, work_items
from sandbox.null_runner import NullRunner
from tests.fixtures.companies import Company
from tests.fixtures.runs import audited
from tests.fixtures.work import Work
from tests.sandbox.guest_double import output
from tests.sandbox.socket_runner import SocketRunner, SocketSandbox, sleep_for_ever
from tests.workers.plant import Plant


async def test_an_item_runs_by_itself_and_is_settled(plant: Plant, acme: Company, work: Work) -> None:
    broker = await plant.broker()
    await plant.runtime(acme, broker, NullRunner())
    item = await work.create(acme.requester, "L1")
    ended = await plant.until(acme.requester, item.id, lambda row: row.ended_at is not None)
    assert (ended.status, ended.outcome, ended.null_runner) == ("succeeded", "succeeded", True)
    assert ended.cost_nano is not None


async def test_without_a_runtime_an_item_waits_and_then_runs(plant: Plant, acme: Company, work: Work) -> None:
    broker = await plant.broker()
    item = await work.create(acme.requester, "L1")
    await plant.until(acme.requester, item.id, lambda row: row.status == "queued")
    await asyncio.sleep(1)
    assert (await plant.status(acme.requester, item.id)).status == "queued"
    await plant.runtime(acme, broker, NullRunner())
    await plant.until(acme.requester, item.id, lambda row: row.status == "succeeded")


async def test_two_brokers_two_companies_each_run_once(
    plant: Plant, acme: Company, globex: Company, work: Work
) -> None:
    brokers = [await plant.broker(), await plant.broker()]
    for company in (acme, globex):
        for broker in brokers:
            await plant.runtime(company, broker, NullRunner(), capacity=2)
    items = [(company, (await work.create(company.requester, "L1")).id) for _ in range(8) for company in (acme, globex)]
    for company, item_id in items:
        await plant.until(company.requester, item_id, lambda row: row.status == "succeeded", 120)
    for company in (acme, globex):
        names = [runtime.identity.names for runtime in plant.runtimes]
        own = {str(name.runtime_id) for name in names if name.tenant_id == company.id}
        ended = await audited(plant.db, company, "run.ended")
        assert len(ended) == 8
        assert {event["runtime_id"] for event in ended} <= own
        assert all(event["attempt"] == 1 for event in ended)


async def test_a_cancel_reaches_the_sandbox(plant: Plant, acme: Company, work: Work) -> None:
    broker = await plant.broker()
    runner = SocketRunner(sleep_for_ever)
    await plant.runtime(acme, broker, runner)
    item = await work.create(acme.requester, "L1")
    await plant.until(acme.requester, item.id, lambda row: row.status == "running")
    async with asyncio.timeout(20):
        while not runner.sandboxes:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    async with plant.db.session_for(acme.requester) as session:
        await work_items.request_cancel(session, acme.requester, item.id, "changed my mind")
    ended = await plant.until(acme.requester, item.id, lambda row: row.ended_at is not None, 30)
    assert (ended.status, ended.outcome) == ("cancelled", "cancelled")
    assert all(sandbox.killed for sandbox in runner.sandboxes.values())


async def test_a_halt_ends_what_runs(plant: Plant, acme: Company, work: Work) -> None:
    broker = await plant.broker()
    runner = SocketRunner(sleep_for_ever)
    await plant.runtime(acme, broker, runner)
    item = await work.create(acme.requester, "L1")
    await plant.until(acme.requester, item.id, lambda row: row.status == "running")
    async with plant.db.session_for(acme.admin) as session:
        await halt.set_halt(session, acme.admin, scope=halt.HaltScope.TENANT, reason="stop")
    ended = await plant.until(acme.requester, item.id, lambda row: row.ended_at is not None, 30)
    assert (ended.status, ended.outcome) == ("halted", "halted")


async def test_a_run_outlives_its_broker_and_keeps_its_output(plant: Plant, acme: Company, work: Work) -> None:
    first = await plant.broker()
    go_on = asyncio.Event()

    async def agent(sandbox: SocketSandbox) -> int:
        guest = await sandbox.connect()
        guest.writer.write(output(0, b"before\n"))
        await go_on.wait()
        guest.writer.write(output(7, b"after\n"))
        guest.exited(0, 13)
        guest.artifact("result.json", b"{}")
        guest.all_sent(1)
        await guest.expect(b"F")
        return 0

    await plant.runtime(acme, first, SocketRunner(agent))
    item = await work.create(acme.requester, "L1")
    await plant.until(acme.requester, item.id, lambda row: row.status == "running")
    first.stop.set()
    await first.task
    await plant.broker(int(first.url.rsplit(":", 1)[1]))
    go_on.set()
    await plant.until(acme.requester, item.id, lambda row: row.status == "succeeded", 90)
    pieces = run_logs.read(plant.db, plant.blobs, None, acme.requester, item.id)
    assert b"".join([piece.data async for piece in pieces]) == b"before\nafter\n"
    assert len(await audited(plant.db, acme, "run.started")) == 1
    async with plant.db.session_for(acme.requester) as session:
        files = await work_items.files(session, acme.requester, item.id, "out")
    assert [file.path for file in files] == ["result.json"]
