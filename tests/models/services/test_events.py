"""The live timeline: one order an item whoever writes, told twice is told once, no secret, never too large."""

from __future__ import annotations

import asyncio
import base64
import json
from urllib.parse import quote

import pytest
from sqlalchemy import text

from models.domain.events import EventKind, ItemEvent
from models.repositories import item_events
from models.services import event_data, events
from models.storage.db import Database
from models.tables.events import ItemEventRow
from models.tables.work import WorkItemRow
from tests.fixtures.companies import Company
from tests.fixtures.work import Work

SECRET = "sk-live-0123456789abcdef"


@pytest.fixture
async def item(work: Work, acme: Company) -> WorkItemRow:
    return await work.create(acme.requester)


async def told(db: Database, item: WorkItemRow, after: int = 0) -> list[ItemEventRow]:
    async with db.tenant_session(item.tenant_id) as session:
        return await item_events.after(session, item.id, after, 1000)


async def tell(db: Database, item: WorkItemRow, *words: str, source: str | None = None) -> None:
    async with db.tenant_session(item.tenant_id) as session:
        for word in words:
            await events.add(session, item.tenant_id, item.id, EventKind.PROGRESS, {"text": word}, source=source)


async def test_one_order_without_holes_whoever_writes(db: Database, item: WorkItemRow) -> None:
    await asyncio.gather(*(tell(db, item, f"{n}a", f"{n}b") for n in range(20)))
    rows = await told(db, item)
    assert [row.seq for row in rows] == list(range(1, 41))
    assert {row.data["text"] for row in rows} == {f"{n}{half}" for n in range(20) for half in "ab"}
    assert all(a.data["text"][:-1] == b.data["text"][:-1] for a, b in zip(rows[::2], rows[1::2], strict=True))


async def test_a_reader_who_goes_on_after_the_last_seq_misses_nothing(db: Database, item: WorkItemRow) -> None:
    seen: list[int] = []
    writing = asyncio.gather(*(tell(db, item, str(n)) for n in range(30)))
    while not writing.done() or len(seen) < 30:
        seen += [row.seq for row in await told(db, item, seen[-1] if seen else 0)]
    assert seen == list(range(1, 31))


async def test_told_twice_is_one_event_and_leaves_no_hole(db: Database, item: WorkItemRow) -> None:
    await tell(db, item, "first", source="run/1/started")
    await asyncio.gather(*(tell(db, item, "again", "and again", source="run/1/started") for _ in range(5)))
    await asyncio.gather(*(tell(db, item, "new", source="run/1/ended") for _ in range(5)))
    assert [(row.seq, row.data["text"]) for row in await told(db, item)] == [(1, "first"), (2, "new")]


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


@pytest.mark.parametrize("name", ["API_KEY", "OPENAI_API_KEY", "db_password", "TOKEN", "GH_TOKEN", "MY_SECRET"])
def test_secret_names(name: str) -> None:
    assert event_data.secrets_in({name: SECRET}) == {SECRET}


@pytest.mark.parametrize("name", ["MODE", "KEYBOARD", "TOKENS_MAX", "MONKEY"])
def test_names_that_are_not_secret(name: str) -> None:
    assert event_data.secrets_in({name: SECRET}) == frozenset()


@pytest.mark.parametrize("lead", ["", "a", "ab", "user:"])
def test_encoded_secrets_are_hidden(lead: str) -> None:
    value = 'pa"ss/wörd+with=all'
    hiding = event_data.redactor(frozenset({value}))
    for form in (
        value,
        quote(value, safe=""),
        json.dumps(value),
        base64.b64encode((lead + value + ":x").encode()).decode(),
        base64.urlsafe_b64encode((lead + value).encode()).decode(),
    ):
        assert event_data.HIDDEN in hiding.hide(f"before {form} after"), form


def test_a_secret_that_a_cut_goes_through_is_hidden_on_both_sides() -> None:
    hiding = event_data.redactor(frozenset({SECRET}))
    for cut in range(4, len(SECRET) - 3):
        before, after = hiding.hide("say " + SECRET[:cut]), hiding.hide(SECRET[cut:] + " said")
        assert (before, after) == ("say [redacted]", "[redacted] said")


def test_what_postgresql_cannot_hold_is_made_so_that_it_can() -> None:
    data = {"a\0": "b\0\ud800", "n": float("nan"), "bytes": b"\xff", "when": object}
    found = event_data.shown(data, event_data.NOTHING_TO_HIDE)
    json.dumps(found, allow_nan=False).encode()
    assert "\0" not in json.dumps(found, ensure_ascii=False)


def test_too_large_is_cut_and_says_so() -> None:
    small = event_data.shown({"text": "x" * 16_000}, event_data.NOTHING_TO_HIDE)
    assert "cut" not in small
    cut = event_data.shown({"text": "€" * 100_000, "n": 1}, event_data.NOTHING_TO_HIDE)
    assert cut["cut"] is True
    assert cut["n"] == 1
    assert len(json.dumps(cut, ensure_ascii=False).encode()) <= event_data.MAX_BYTES
    hopeless = event_data.shown({str(n): n for n in range(10_000)}, event_data.NOTHING_TO_HIDE)
    assert hopeless["cut"] is True
