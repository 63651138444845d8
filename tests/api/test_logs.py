"""Output as server-sent events: from the store, resumed, alive while nothing happens, and without Redis."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg
import pytest

from api.app import create_app
from api.deps import Deps
from api.routes import logs as routes
from models.domain.principal import Principal
from models.storage.cache import Cache
from models.tables.work import WorkItemRow
from sandbox.link.messages import LogRecord
from tests.api.conftest import Client, serve
from tests.api.issuer import TestIssuer
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase, free_port
from tests.fixtures.work import Work


class Run:
    """A run whose rows the test writes itself, as a broker would."""

    def __init__(self, admin: psycopg.Connection[Any], deps: Deps, item: WorkItemRow) -> None:
        self.admin, self.deps, self.item = admin, deps, item
        self.id = UUID(item.spec["run_id"])
        self.offset = 0
        admin.execute(
            "insert into runs (tenant_id, id, work_item_id, status, attempt) values (%s, %s, %s, 'running', 1)",
            (item.tenant_id, self.id, item.id),
        )

    async def says(self, *data: bytes) -> None:
        records = [self._record(piece) for piece in data]
        content = b"".join(record.model_dump_json(by_alias=True).encode() + b"\n" for record in records)
        start, self.offset = records[0].offset, records[-1].offset + len(data[-1])
        self.admin.execute(
            "insert into log_chunks (tenant_id, run_id, attempt, start_offset, end_offset, sha256, size)"
            " values (%s, %s, 1, %s, %s, %s, %s)",
            (self.item.tenant_id, self.id, start, self.offset, await self.deps.blobs.put(content), len(content)),
        )

    def _record(self, data: bytes) -> LogRecord:
        record = LogRecord.model_validate(
            {
                "offset": self.offset,
                "stream": "stdout",
                "at": "2026-11-24T10:00:00Z",
                "data_b64": base64.b64encode(data).decode(),
            }
        )
        self.offset += len(data)
        return record

    def ends(self, status: str = "succeeded") -> None:
        self.admin.execute("update runs set status = 'ended', outcome = 'succeeded' where id = %s", (self.id,))
        self.admin.execute(
            "update work_items set status = %s, outcome = 'succeeded', ended_at = now() where id = %s",
            (status, self.item.id),
        )


@pytest.fixture
async def run(database: TestDatabase, deps: Deps, work: Work, acme: Company) -> AsyncIterator[Run]:
    item = await work.create(acme.requester)
    with database.admin() as admin:
        yield Run(admin, deps, item)


@asynccontextmanager
async def stream(api: Client, item_id: UUID, who: Principal, after: str = "", query: str = "") -> AsyncGenerator[Any]:
    headers = {"Authorization": f"Bearer {api.issuer.token(who)}"} | ({"Last-Event-ID": after} if after else {})
    async with api.session.get(f"{api.url}/v1/work-items/{item_id}/logs{query}", headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield response.content


async def _events(content: Any) -> list[tuple[str, str, Any]]:
    """All events until the stream ends."""
    events: list[tuple[str, str, Any]] = []
    for block in (await asyncio.wait_for(content.read(), 20)).decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "event" in fields:
            events.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))
    return events


async def test_all_of_it_then_the_end(api: Client, acme: Company, run: Run) -> None:
    await run.says(b"one\n", b"two\n")
    await run.says("drei €\n".encode(), b"\xff\xfe")
    run.ends()
    async with stream(api, run.item.id, acme.requester) as content:
        events = await _events(content)
    logs = [data for name, _, data in events if name == "log"]
    assert [data.get("text") for data in logs] == ["one\n", "two\n", "drei €\n", None]
    assert base64.b64decode(logs[3]["data_b64"]) == b"\xff\xfe"
    assert [data["offset"] for data in logs] == [0, 4, 8, 17]
    assert events[-1] == ("end", "", {"status": "succeeded", "outcome": "succeeded"})


async def test_resumed_where_it_was_left(api: Client, acme: Company, run: Run) -> None:
    await run.says(b"one\n", b"two\n", b"three\n")
    run.ends()
    async with stream(api, run.item.id, acme.requester) as content:
        events = await _events(content)
    first_id = events[0][1]
    async with stream(api, run.item.id, acme.requester, after=first_id) as content:
        again = await _events(content)
    assert again == events[1:]
    async with stream(api, run.item.id, acme.requester, after="1.6") as content:
        assert (await _events(content))[0][2]["text"] == "o\n", "from any offset, also in the middle of a piece"


async def test_a_position_that_is_none_is_said(api: Client, acme: Company, run: Run) -> None:
    answer = await api.get(f"/v1/work-items/{run.item.id}/logs", acme.requester, headers={"Last-Event-ID": "x"})
    answer.problem(422)


async def _live(api: Client, acme: Company, run: Run) -> None:
    async with stream(api, run.item.id, acme.requester) as content:
        await run.says(b"early\n")
        seen = b""
        while b"early" not in seen:
            seen += await asyncio.wait_for(content.readline(), 10)
        await run.says(b"late\n")
        while b"late" not in seen:
            seen += await asyncio.wait_for(content.readline(), 10)
        run.ends()
        assert b"event: end" in await asyncio.wait_for(content.read(), 10)


async def test_followed_while_it_runs(api: Client, acme: Company, run: Run) -> None:
    await _live(api, acme, run)


async def test_followed_without_redis(deps: Deps, issuer: TestIssuer, acme: Company, run: Run) -> None:
    away = Cache(f"redis://127.0.0.1:{free_port()}/0", "key")
    async with serve(create_app(replace(deps, cache=away)), issuer) as api:
        await _live(api, acme, run)
    await away.close()


async def test_alive_while_nothing_happens(
    api: Client, acme: Company, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "HEARTBEAT_SECONDS", 0.05)
    async with stream(api, run.item.id, acme.requester) as content:
        seen = b""
        while seen.count(b": still here") < 3:
            seen += await asyncio.wait_for(content.readline(), 10)
        run.ends()
        assert b"event: end" in await asyncio.wait_for(content.read(), 10)


async def test_what_there_is_now_and_no_more(api: Client, acme: Company, run: Run) -> None:
    await run.says(b"so far\n")
    async with stream(api, run.item.id, acme.requester, query="?follow=false") as content:
        events = await _events(content)
    assert [name for name, _, _ in events] == ["log", "end"]


async def test_the_holding_reads_a_subsidiarys_output(api: Client, holding: Company, run: Run) -> None:
    await run.says(b"hello\n")
    run.ends()
    async with stream(api, run.item.id, holding.auditor) as content:
        assert (await _events(content))[0][2]["text"] == "hello\n"


async def test_a_reader_who_leaves_leaves_nothing_behind(api: Client, acme: Company, run: Run, deps: Deps) -> None:
    for _ in range(15):  # more than the pool has connections
        async with stream(api, run.item.id, acme.requester) as content:
            await content.readline()
    await asyncio.sleep(0.2)
    (await api.get("/v1/me", acme.requester)).ok()
    assert deps.db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
