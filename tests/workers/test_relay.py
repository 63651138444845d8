"""The outbox is carried at least once, whatever dies, and one entry that cannot be sent holds nobody up."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from sqlalchemy import text

from models.repositories import dispatch as rows
from models.services.dispatch import Dispatcher
from models.services.ids import new_id
from models.services.outbox import OutboxKind, enqueue
from models.storage.db import Database
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.work import Work
from workers.relay import BATCH, CARRY_SECONDS, carry_all, relay


@dataclass
class Receiver:
    """Takes what the relay brings; fails for some, hangs for some."""

    taken: Counter[UUID] = field(default_factory=Counter[UUID])
    fails: set[UUID] = field(default_factory=set[UUID])
    hangs: set[UUID] = field(default_factory=set[UUID])
    hanging: asyncio.Event = field(default_factory=asyncio.Event)

    async def start_work_item(self, tenant_id: UUID, work_item_id: UUID, summary: str = "") -> bool:
        return True

    async def signal_work_item(self, tenant_id: UUID, work_item_id: UUID) -> bool:
        if work_item_id in self.fails:
            raise ConnectionError("the receiver is away")
        if work_item_id in self.hangs:
            self.hanging.set()
            await asyncio.Event().wait()
        self.taken[work_item_id] += 1
        return True

    async def signal_approval(self, approval_id: UUID) -> bool:
        return True

    async def start_approval(self, tenant_id: UUID, work_item_id: UUID | None, approval_id: UUID) -> bool:
        return True

    async def start_effect(self, tenant_id: UUID, action_id: UUID) -> bool:
        return True

    async def signal_effect(self, tenant_id: UUID, action_id: UUID) -> bool:
        return True

    async def start_delivery(self, tenant_id: UUID, outbox_id: UUID) -> bool:
        return True


async def fill(db: Database, company: Company, count: int) -> list[UUID]:
    ids = [new_id() for _ in range(count)]
    async with db.tenant_session(company.id) as session:
        for work_item_id in ids:
            enqueue(session, company.id, OutboxKind.SIGNAL_WORK_ITEM, {"work_item_id": str(work_item_id)})
    return ids


async def left(db: Database, company: Company) -> list[tuple[str, int, str | None]]:
    async with db.tenant_session(company.id) as session:
        found = await (await session.connection()).execute(
            text("select payload->>'work_item_id', attempts, last_error from outbox where done_at is null")
        )
        return [tuple(row) for row in found]


async def until_left(db: Database, company: Company, count: int) -> None:
    async with asyncio.timeout(30):
        while len(await left(db, company)) != count:  # noqa: ASYNC110 - a row tells, no event
            await asyncio.sleep(0.05)


async def test_two_relays_carry_all_and_poison_holds_nobody_up(
    db: Database, system_db: Database, acme: Company, globex: Company
) -> None:
    receiver, stop = Receiver(), asyncio.Event()
    ids = await fill(db, acme, 60) + await fill(db, globex, 20)
    poison = ids[0]
    receiver.fails.add(poison)
    unknown = new_id()
    async with db.tenant_session(acme.id) as session:
        enqueue(session, acme.id, OutboxKind.SIGNAL_WORK_ITEM, {"nonsense": str(unknown)})
    relays = [asyncio.create_task(relay(system_db, Dispatcher(db, system_db, receiver, None), stop)) for _ in range(2)]
    await until_left(db, acme, 2)
    await until_left(db, globex, 0)
    assert receiver.taken == Counter(ids[1:])
    waiting = await left(db, acme)
    assert all(attempts >= 1 and error for _, attempts, error in waiting)
    receiver.fails.clear()
    await until_left(db, acme, 1)
    assert receiver.taken[poison] == 1
    stop.set()
    await asyncio.gather(*relays)


async def test_what_a_dead_relay_had_taken_is_carried_by_another(
    db: Database, database: TestDatabase, system_db: Database, acme: Company
) -> None:
    receiver = Receiver()
    ids = await fill(db, acme, 5)
    receiver.hangs.update(ids)
    dead = asyncio.create_task(relay(system_db, Dispatcher(db, system_db, receiver, None), asyncio.Event()))
    await receiver.hanging.wait()
    dead.cancel()
    await asyncio.gather(dead, return_exceptions=True)
    assert receiver.taken == Counter()
    with database.admin() as admin:  # the time for which it had them passes
        admin.execute("update outbox set due_at = now() where done_at is null")
    receiver.hangs.clear()
    stop = asyncio.Event()
    other = asyncio.create_task(relay(system_db, Dispatcher(db, system_db, receiver, None), stop))
    await until_left(db, acme, 0)
    assert receiver.taken == Counter(ids)
    stop.set()
    await other


async def test_what_hangs_does_not_take_the_time_of_what_was_never_begun(
    db: Database, system_db: Database, acme: Company
) -> None:
    """Thirty entries whose receiver hangs fill the places: the rest is given back untried, not carried too late."""
    receiver, stop = Receiver(), asyncio.Event()
    ids = await fill(db, acme, BATCH)
    receiver.hangs.update(ids[:30])
    batch = await rows.take_due(system_db, BATCH)
    started = asyncio.get_running_loop().time()
    await carry_all(system_db, Dispatcher(db, system_db, receiver, None), batch, started + 1.0)
    assert asyncio.get_running_loop().time() - started < rows.TAKEN_FOR_SECONDS / 3
    waiting = await left(db, acme)
    assert Counter((attempts, error is None) for _, attempts, error in waiting) == {(1, False): 16, (0, True): 34}
    receiver.hangs.clear()
    other = asyncio.create_task(relay(system_db, Dispatcher(db, system_db, receiver, None), stop))
    await until_left(db, acme, 0)
    assert receiver.taken == Counter(ids)
    stop.set()
    await other


def test_a_batch_has_less_time_than_it_is_taken_for() -> None:
    assert CARRY_SECONDS < rows.TAKEN_FOR_SECONDS


@pytest.mark.parametrize("everything", [True, False])
async def test_many_changes_of_budgets_wake_each_waiting_item_once(
    db: Database,
    system_db: Database,
    database: TestDatabase,
    acme: Company,
    globex: Company,
    work: Work,
    everything: bool,
) -> None:
    waiting = {company.id: (await work.assessed(company, "L1")).id for company in (acme, globex)}
    with database.admin() as admin:
        admin.execute("update work_items set status = 'awaiting_budget'")
        admin.execute("update outbox set done_at = now()")
    for company in (acme, globex):
        async with db.tenant_session(company.id) as session:
            for _ in range(10):
                enqueue(session, company.id, OutboxKind.BUDGET_CHANGED, {"everything": False})
                enqueue(session, company.id, OutboxKind.BUDGET_CHANGED, {"everything": everything})
    receiver = Receiver()
    batch = await rows.take_due(system_db, BATCH)
    assert len(batch) == 40
    until = asyncio.get_running_loop().time() + CARRY_SECONDS
    await carry_all(system_db, Dispatcher(db, system_db, receiver, None), batch, until)
    assert receiver.taken == Counter(waiting.values())
    assert await left(db, acme) == await left(db, globex) == []


async def test_changes_of_budgets_that_were_not_told_are_told_later(
    db: Database, system_db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    item = await work.assessed(acme, "L1")
    with database.admin() as admin:
        admin.execute("update work_items set status = 'awaiting_budget'")
        admin.execute("update outbox set done_at = now()")
    async with db.tenant_session(acme.id) as session:
        for _ in range(3):
            enqueue(session, acme.id, OutboxKind.BUDGET_CHANGED, {"everything": True})
    receiver = Receiver(fails={item.id})
    batch = await rows.take_due(system_db, BATCH)
    until = asyncio.get_running_loop().time() + CARRY_SECONDS
    await carry_all(system_db, Dispatcher(db, system_db, receiver, None), batch, until)
    assert [(attempts, bool(error)) for _, attempts, error in await left(db, acme)] == [(1, True)] * 3
