"""The live timeline: one order an item whoever writes, told twice is told once, no secret, never too large."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

import pytest
from sqlalchemy import text

from models.domain.events import EventKind, ItemEvent
from models.repositories import item_events
from models.services import events
from models.storage.db import Database
from models.tables.events import ItemEventRow
from models.tables.work import WorkItemRow
from tests.fixtures.companies import Company
from tests.fixtures.work import Work, asked_about

SECRET = "sk-live-0123456789abcdef"


@pytest.fixture
async def item(work: Work, acme: Company) -> WorkItemRow:
    return await work.create(acme.requester)


CREATED = 1
"""That the item was created is audited, and so the first event of its timeline."""


async def told(db: Database, item: WorkItemRow, after: int = CREATED) -> list[ItemEventRow]:
    async with db.tenant_session(item.tenant_id) as session:
        return await item_events.after(session, item.id, after, 1000)


async def tell(db: Database, item: WorkItemRow, *words: str, source: str | None = None) -> None:
    async with db.tenant_session(item.tenant_id) as session:
        for word in words:
            await events.add(session, item.tenant_id, item.id, EventKind.PROGRESS, {"text": word}, source=source)


async def test_one_order_without_holes_whoever_writes(db: Database, item: WorkItemRow) -> None:
    await asyncio.gather(*(tell(db, item, f"{n}a", f"{n}b") for n in range(20)))
    rows = await told(db, item)
    assert [row.seq for row in rows] == list(range(2, 42))
    assert {row.data["text"] for row in rows} == {f"{n}{half}" for n in range(20) for half in "ab"}
    assert all(a.data["text"][:-1] == b.data["text"][:-1] for a, b in zip(rows[::2], rows[1::2], strict=True))


async def test_a_reader_who_goes_on_after_the_last_seq_misses_nothing(db: Database, item: WorkItemRow) -> None:
    seen: list[int] = []
    writing = asyncio.gather(*(tell(db, item, str(n)) for n in range(30)))
    while not writing.done() or len(seen) < 30:
        seen += [row.seq for row in await told(db, item, seen[-1] if seen else CREATED)]
    assert seen == list(range(2, 32))


async def test_told_twice_is_one_event_and_leaves_no_hole(db: Database, item: WorkItemRow) -> None:
    await tell(db, item, "first", source="run/1/started")
    await asyncio.gather(*(tell(db, item, "again", "and again", source="run/1/started") for _ in range(5)))
    await asyncio.gather(*(tell(db, item, "new", source="run/1/ended") for _ in range(5)))
    assert [(row.seq, row.data["text"]) for row in await told(db, item)] == [(2, "first"), (3, "new")]


async def test_what_is_rolled_back_never_happened(db: Database, item: WorkItemRow) -> None:
    async def fails() -> None:
        async with db.tenant_session(item.tenant_id) as session:
            await events.add(session, item.tenant_id, item.id, EventKind.RUN, {"what": "started"})
            raise RuntimeError("away")

    with pytest.raises(RuntimeError, match="away"):
        await fails()
    assert await told(db, item) == []


async def test_only_in_its_own_tenant(db: Database, item: WorkItemRow, globex: Company) -> None:
    async with db.tenant_session(globex.id) as session:
        with pytest.raises(RuntimeError, match="its own tenant"):
            await events.add(session, item.tenant_id, item.id, EventKind.RUN, {})
        assert await item_events.after(session, item.id, 0, 10) == []


async def test_an_item_that_is_not_there_fails_nobody(db: Database, item: WorkItemRow, globex: Company) -> None:
    async with db.tenant_session(globex.id) as session:
        await events.add(session, globex.id, item.id, EventKind.RUN, {})
        await events.add(session, globex.id, uuid4(), EventKind.RUN, {})
    assert await told(db, item) == []


async def test_an_event_waits_for_nobody_who_holds_the_item(db: Database, item: WorkItemRow) -> None:
    """Whoever locks an item and then a run meets whoever holds the run and tells the item's timeline."""
    from models.services import lifecycle

    async with db.tenant_session(item.tenant_id) as session:
        await lifecycle.lock_work_item(session, item.id)
        await asyncio.wait_for(tell(db, item, "meanwhile"), 10)
    assert len(await told(db, item)) == 1


async def test_an_events_secrets_are_hidden(db: Database, item: WorkItemRow) -> None:
    async with db.tenant_session(item.tenant_id) as session:
        await (await session.connection()).execute(
            text("update work_items set spec = jsonb_set(spec, '{env}', cast(:env as jsonb)) where id = :id"),
            {"env": json.dumps({"SHOP_API_KEY": SECRET, "MODE": "dry"}), "id": item.id},
        )
    data = {"text": f"key {SECRET}", "deep": [{SECRET: 1}], "mode": "dry"}
    async with db.tenant_session(item.tenant_id) as session:
        one = ItemEvent(work_item_id=item.id, kind=EventKind.OUTPUT, data=data)
        await events.add_many(session, item.tenant_id, [one, one])
    rows = await told(db, item)
    assert [row.data for row in rows] == [{"text": "key [redacted]", "deep": [{"[redacted]": 1}], "mode": "dry"}] * 2


async def test_what_is_audited_of_an_item_stands_in_its_timeline(db: Database, work: Work, acme: Company) -> None:
    approval = await work.asked(acme)
    async with db.tenant_session(acme.id) as session:
        rows = await item_events.after(session, asked_about(approval), 0, 100)
    assert [(row.kind, row.data["what"]) for row in rows][:2] == [("status", "created"), ("status", "assessing")]
    opened = next(row.data for row in rows if row.kind == "approval")
    assert (opened["what"], opened["about"]) == ("opened", f"approval/{approval.id}")
    assert opened["by"]
    assert opened["summary"]
