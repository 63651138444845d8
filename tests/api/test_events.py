"""The live timeline: a page, a stream resumed after any seq, in order under concurrency, whole without Redis; costs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from api.app import create_app
from api.deps import Deps
from api.routes import events as routes
from models.domain.events import EventKind
from models.domain.principal import Principal
from models.services import events
from models.storage.cache import Cache
from models.tables.work import WorkItemRow
from tests.api.conftest import Client, serve
from tests.api.issuer import TestIssuer
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase, free_port
from tests.fixtures.work import Work

CREATED = 1
"""That the item was created is audited, and so the first event of its timeline."""


class Item:
    """An item whose timeline the test tells itself."""

    def __init__(self, database: TestDatabase, deps: Deps, row: WorkItemRow) -> None:
        self.database, self.deps, self.row = database, deps, row
        self.id, self.path = row.id, f"/v1/work-items/{row.id}/events"

    async def tell(self, *words: str) -> None:
        async with self.deps.db.tenant_session(self.row.tenant_id) as session:
            for word in words:
                await events.add(session, self.row.tenant_id, self.id, EventKind.PROGRESS, {"text": word})
        await events.ring(self.deps.cache, self.row.tenant_id, self.id)

    def ends(self) -> None:
        with self.database.admin() as admin:
            admin.execute(
                "update work_items set status = 'succeeded', outcome = 'succeeded', ended_at = now() where id = %s",
                (self.id,),
            )


@pytest.fixture
async def item(database: TestDatabase, deps: Deps, work: Work, acme: Company) -> Item:
    return Item(database, deps, await work.create(acme.requester))


@pytest.fixture
async def without_redis(deps: Deps, issuer: TestIssuer) -> AsyncIterator[Client]:
    away = Cache(f"redis://127.0.0.1:{free_port()}/0", "key")
    async with serve(create_app(replace(deps, cache=away)), issuer) as api:
        yield api
    await away.close()


@asynccontextmanager
async def stream(api: Client, item: Item, who: Principal, after: str = str(CREATED)) -> AsyncGenerator[Any]:
    headers = {"Authorization": f"Bearer {api.issuer.token(who)}", "Accept": "text/event-stream"}
    headers |= {"Last-Event-ID": after}
    async with api.session.get(api.url + item.path, headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield response.content


async def _read(content: Any, count: int = 10**6) -> list[tuple[str, str, Any]]:
    """So many events, or all until the stream ends."""
    found: list[tuple[str, str, Any]] = []
    fields: dict[str, str] = {}
    async with asyncio.timeout(20):
        while len(found) < count and (line := (await content.readline()).decode()):
            name, _, value = line.rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "event" in fields:
                found.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))
            if not name:
                fields = {}
    return found


def _words(found: list[tuple[str, str, Any]]) -> list[str]:
    return [data["data"]["text"] for name, _, data in found if name == "progress"]


async def test_pages_in_order(api: Client, acme: Company, item: Item) -> None:
    await item.tell("one", "two", "three")
    assert (await api.get(f"{item.path}?limit=1", acme.requester)).ok()["items"][0]["data"]["what"] == "created"
    first = (await api.get(f"{item.path}?limit=2&after={CREATED}", acme.requester)).ok()
    assert [(event["seq"], event["kind"], event["data"]) for event in first["items"]] == [
        (2, "progress", {"text": "one"}),
        (3, "progress", {"text": "two"}),
    ]
    rest = (await api.get(f"{item.path}?limit=2&after={first['next_after']}", acme.requester)).ok()
    assert [event["data"]["text"] for event in rest["items"]] == ["three"]
    assert rest["next_after"] is None


async def test_all_of_it_then_the_end(api: Client, acme: Company, item: Item) -> None:
    await item.tell("one", "two")
    item.ends()
    async with stream(api, item, acme.requester) as content:
        found = await _read(content)
    assert _words(found) == ["one", "two"]
    assert [event_id for _, event_id, _ in found] == ["2", "3", ""]
    assert found[-1] == ("end", "", {"status": "succeeded", "outcome": "succeeded"})


async def test_resumed_after_any_seq(api: Client, acme: Company, item: Item) -> None:
    await item.tell(*map(str, range(1, 8)))
    item.ends()
    for seq in range(8):
        async with stream(api, item, acme.requester, after=str(CREATED + seq)) as content:
            assert _words(await _read(content)) == [str(n) for n in range(seq + 1, 8)]


async def test_more_than_a_page_at_once(api: Client, acme: Company, item: Item) -> None:
    await item.tell(*map(str, range(450)))
    item.ends()
    async with stream(api, item, acme.requester) as content:
        assert _words(await _read(content)) == [str(n) for n in range(450)]


@pytest.mark.parametrize("position", ["x", "-1", "1.5", "٣", "9" * 30])
async def test_a_position_that_is_none_is_said(api: Client, acme: Company, item: Item, position: str) -> None:
    headers = {"Last-Event-ID": position.encode().decode("latin-1"), "Accept": "text/event-stream"}
    (await api.get(item.path, acme.requester, headers=headers)).problem(422)


async def _many_tell_while_it_is_read(api: Client, acme: Company, item: Item) -> None:
    """Ten writers at once; the reader leaves and comes back in between."""
    writing = asyncio.gather(*(item.tell(f"{n}a", f"{n}b") for n in range(10)))
    async with stream(api, item, acme.requester) as content:
        first = await _read(content, 7)
    async with stream(api, item, acme.requester, after=first[-1][1]) as content:
        rest = await _read(content, 13)
        await writing
        item.ends()
        assert [name for name, _, _ in await _read(content)] == ["end"]
    assert [int(event_id) for _, event_id, _ in first + rest] == list(range(2, 22))
    assert sorted(_words(first + rest)) == sorted(f"{n}{half}" for n in range(10) for half in "ab")


async def test_nothing_lost_nor_doubled(api: Client, acme: Company, item: Item) -> None:
    await _many_tell_while_it_is_read(api, acme, item)


async def test_nothing_lost_nor_doubled_without_redis(without_redis: Client, acme: Company, item: Item) -> None:
    await _many_tell_while_it_is_read(without_redis, acme, item)


async def test_alive_while_nothing_happens(
    api: Client, acme: Company, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "HEARTBEAT_SECONDS", 0.0)
    monkeypatch.setattr("models.services.item_events.POLL_SECONDS", 0.05)
    async with stream(api, item, acme.requester) as content:
        seen = b""
        while seen.count(b": still here") < 3:
            seen += await asyncio.wait_for(content.readline(), 10)
        item.ends()
        assert b"event: end" in await asyncio.wait_for(content.read(), 10)


async def test_the_holding_reads_it_and_a_sister_does_not(
    api: Client, holding: Company, globex: Company, item: Item
) -> None:
    await item.tell("hello")
    item.ends()
    async with stream(api, item, holding.auditor) as content:
        assert _words(await _read(content)) == ["hello"]
    for headers in ({}, {"Accept": "text/event-stream"}):
        (await api.get(item.path, globex.auditor, headers=headers)).problem(404)
    (await api.get(f"/v1/work-items/{item.id}/costs", globex.auditor)).problem(404)


async def test_a_reader_who_leaves_leaves_nothing_behind(api: Client, acme: Company, item: Item, deps: Deps) -> None:
    for _ in range(15):  # more than the pool has connections
        async with stream(api, item, acme.requester) as content:
            await content.readline()
    (await api.get("/v1/me", acme.requester)).ok()
    await asyncio.sleep(0.2)
    assert deps.db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def _charge(item: Item, call: UUID, amount: int, kind: str, tokens: dict[str, int]) -> None:
    reservation = uuid4()
    with item.database.admin() as admin:
        keys = (item.row.tenant_id, reservation, item.id)
        admin.execute(
            "insert into reservations (tenant_id, id, work_item_id, amount_nano, phase)"
            " values (%s, %s, %s, 9000000, 'settled')",
            keys,
        )
        admin.execute(
            "insert into charges (tenant_id, id, reservation_id, work_item_id, kind, amount_nano, detail)"
            " values (%s, %s, %s, %s, 'sandbox_time', 500, '{}')",
            (keys[0], uuid4(), *keys[1:]),
        )
        admin.execute(
            "insert into llm_charges (tenant_id, call_id, reservation_id, work_item_id, run_id, assistant_id, model,"
            " prices, tokens, held_nano, amount_nano, kind, started_at, ended_at)"
            " values (%s, %s, %s, %s, %s, %s, 'test/model', '{}', %s, 9000000, %s, %s, now(), now())",
            (keys[0], call, *keys[1:], uuid4(), uuid4(), json.dumps(tokens), amount, kind),
        )


async def test_costs_are_split_and_the_ledger_is_paged(api: Client, acme: Company, item: Item) -> None:
    none = (await api.get(f"/v1/work-items/{item.id}", acme.requester)).ok()["costs"]
    assert (none["calls"], none["llm_nano"], none["sandbox_nano"], none["tokens"]) == (0, 0, 0, {})
    ids = [UUID(int=n) for n in range(1, 6)]
    for n, call in enumerate(ids):
        _charge(item, call, 1000 + n, "estimated" if n == 4 else "final", {"input": 10, "output": n})
    costs = (await api.get(f"/v1/work-items/{item.id}", acme.requester)).ok()["costs"]
    assert costs == {
        "sandbox": "0.0000025 USD",
        "sandbox_nano": 2500,
        "llm": "0.00000501 USD",
        "llm_nano": 5010,
        "calls": 5,
        "estimated_calls": 1,
        "tokens": {"input": 50, "output": 10},
    }
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await api.get(f"/v1/work-items/{item.id}/costs?limit=2{cursor}", acme.auditor)).ok()
        assert page["costs"] == costs
        seen += [line["call_id"] for line in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == [str(call) for call in ids]
    (await api.get(f"/v1/work-items/{item.id}/costs?cursor=nonsense", acme.auditor)).problem(422)
