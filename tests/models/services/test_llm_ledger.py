from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from models.domain.errors import DependencyAway, Forbidden
from models.domain.principal import service_principal
from models.services import money as budgets
from models.services import settlement
from models.services.ids import new_id
from models.services.llm_closing import ModelCloser
from models.services.llm_ledger import Flusher, about_call, about_run, facts_of_call
from models.services.llm_openings import ModelCallsOpen, open_reservation
from models.services.llm_spool import LlmSpool
from models.storage.db import Database
from models.storage.llm_money import LlmMoney
from sandbox.spec import RunOutcome, RunResult
from tests.fixtures.companies import Company
from tests.fixtures.model_calls import CARD, GRANT, PRICES, LiveModelRun, hold, ledger, live_run, opened, settle
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.runs import audited, item_of, outlive_lease, tamper
from tests.fixtures.valkey import ValkeyServer
from tests.fixtures.work import Work, control


@pytest.fixture
async def money(valkey: ValkeyServer) -> AsyncIterator[LlmMoney]:
    made = LlmMoney(valkey.url)
    yield made
    await made.shut()


@pytest.fixture
async def run(db: Database, database: TestDatabase, work: Work, acme: Company) -> LiveModelRun:
    return await live_run(db, database, work, acme)


def end_run(database: TestDatabase, run: LiveModelRun) -> None:
    result = RunResult(outcome=RunOutcome.SUCCEEDED, wall_seconds=2.0).model_dump_json()
    tamper(
        database,
        "update runs set status = 'ended', outcome = 'succeeded', result = %s, started_at = now(), ended_at = now()"
        " where id = %s",
        result,
        run.ref.run_id,
    )


async def finish(db: Database, acme: Company, run: LiveModelRun) -> None:
    async with db.tenant_session(acme.id) as session:
        await settlement.finish(session, control(acme.id), run.item.id)


async def charges(db: Database, acme: Company, item_id: UUID) -> dict[str, int]:
    async with db.tenant_session(acme.id) as session:
        found = await (await session.connection()).execute(
            text("select kind, amount_nano from charges where work_item_id = :item"), {"item": item_id}
        )
        return {row.kind: row.amount_nano for row in found}


async def test_calls_come_into_the_ledger_the_timeline_and_the_bill(
    db: Database, database: TestDatabase, acme: Company, money: LlmMoney, run: LiveModelRun
) -> None:
    await opened(db, money, run.claims)
    for amount in (100, 250):
        await settle(money, run.claims, await hold(money, run.claims, 1000), amount)
    flusher = Flusher(db, money)
    assert await flusher.flush() == 2
    assert await flusher.flush() == 0
    rows = await ledger(db, acme, run.item.id)
    assert [(row.amount_nano, row.held_nano, row.kind, row.upstream_id) for row in rows] == [
        (100, 1000, "final", "gen-1"),
        (250, 1000, "final", "gen-1"),
    ]
    assert rows[0].prices == {"input": CARD.input, "output": CARD.output}
    end_run(database, run)
    with pytest.raises(ModelCallsOpen):
        await finish(db, acme, run)
    await ModelCloser(db, money).close(acme.id, run.item.id)
    await finish(db, acme, run)
    booked = await charges(db, acme, run.item.id)
    assert booked["llm"] == 350
    assert (await item_of(db, acme, run.item.id)).cost_nano == sum(booked.values())
    assert [event["charged_nano"] for event in await audited(db, acme, "llm.closed")] == ["350"]


async def test_the_timeline_tells_of_each_call_once(
    db: Database, acme: Company, money: LlmMoney, run: LiveModelRun
) -> None:
    await opened(db, money, run.claims)
    await settle(money, run.claims, await hold(money, run.claims, 1000), 100)
    entries = await money.entries()
    flusher = Flusher(db, money)
    for _ in range(2):  # as by two that read the same page, or by one that died before it let go of it
        for found in (await flusher._by_item(entries)).values():
            await flusher._write([charge for _, charge in found])
    async with db.tenant_session(acme.id) as session:
        events = await (await session.connection()).execute(
            text("select data from item_events where work_item_id = :item and kind = 'llm_call'"),
            {"item": run.item.id},
        )
        told = list(events.scalars())
    assert [(event["model"], event["amount_nano"]) for event in told] == [("scripted/small", "100")]
    assert len(await ledger(db, acme, run.item.id)) == 1


async def test_what_nobody_told_the_end_of_is_waited_for_and_then_charged_as_held(
    db: Database, database: TestDatabase, acme: Company, money: LlmMoney, run: LiveModelRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    await opened(db, money, run.claims)
    await hold(money, run.claims, 700)
    end_run(database, run)
    closer = ModelCloser(db, money)
    with pytest.raises(ModelCallsOpen, match="1 model calls are under way"):
        await closer.close(acme.id, run.item.id)
    monkeypatch.setattr("models.services.llm_closing.UNDER_WAY_SECONDS", 0)
    await closer.close(acme.id, run.item.id)
    await closer.close(acme.id, run.item.id)
    await finish(db, acme, run)
    [row] = await ledger(db, acme, run.item.id)
    assert (row.amount_nano, row.kind, row.tokens) == (700, "estimated", {})
    assert (await charges(db, acme, run.item.id))["llm"] == 700


async def test_a_redis_that_lost_its_memory_costs_the_rest_of_the_grant(
    db: Database, database: TestDatabase, acme: Company, valkey: ValkeyServer, money: LlmMoney, run: LiveModelRun
) -> None:
    await opened(db, money, run.claims)
    await settle(money, run.claims, await hold(money, run.claims, 1000), 100)
    await Flusher(db, money).flush()
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    again = LlmMoney(valkey.url)
    with pytest.raises(DependencyAway, match="lost its memory"):
        await opened(db, again, run.claims)
    end_run(database, run)
    await ModelCloser(db, again).close(acme.id, run.item.id)
    await finish(db, acme, run)
    await again.shut()
    rows = await ledger(db, acme, run.item.id)
    assert {row.kind: row.amount_nano for row in rows} == {"final": 100, "unaccounted": GRANT - 100}
    assert (await charges(db, acme, run.item.id))["llm"] == GRANT
    [event] = await audited(db, acme, "llm.unaccounted")
    assert event["unaccounted_nano"] == str(GRANT - 100)


async def test_a_redis_that_is_away_is_waited_for_and_given_up_in_the_end(
    db: Database, database: TestDatabase, acme: Company, valkey: ValkeyServer, money: LlmMoney, run: LiveModelRun
) -> None:
    await opened(db, money, run.claims)
    end_run(database, run)
    away = ModelCloser(db, LlmMoney(valkey.url.replace(f":{valkey.port}", ":1")))
    with pytest.raises(ModelCallsOpen, match="Redis"):
        await away.close(acme.id, run.item.id)
    tamper(database, "update runs set ended_at = now() - interval '11 min'")
    await away.close(acme.id, run.item.id)
    [row] = await ledger(db, acme, run.item.id)
    assert (row.kind, row.amount_nano) == ("unaccounted", GRANT)


async def test_an_opening_that_never_came_to_redis_costs_nothing(
    db: Database, database: TestDatabase, acme: Company, money: LlmMoney, run: LiveModelRun
) -> None:
    principal = service_principal("gateway", acme.id)
    async with db.session_for(principal) as session:
        await open_reservation(session, principal, run.claims, await money.identity())
    end_run(database, run)
    await ModelCloser(db, money).close(acme.id, run.item.id)
    await finish(db, acme, run)
    assert "llm" not in await charges(db, acme, run.item.id)


async def test_what_is_closed_is_opened_again_with_what_is_left(
    db: Database, acme: Company, money: LlmMoney, run: LiveModelRun
) -> None:
    await opened(db, money, run.claims)
    await settle(money, run.claims, await hold(money, run.claims, 1000), 400)
    await ModelCloser(db, money).close(acme.id, run.item.id)
    await opened(db, money, run.claims)
    standing = await money.standing(run.claims.reservation)
    assert standing == {"limit": GRANT, "charged": 400, "held": 0, "closed": 0}


async def test_a_hold_that_is_given_up_still_pays_for_its_calls(
    db: Database, database: TestDatabase, acme: Company, money: LlmMoney, run: LiveModelRun
) -> None:
    await opened(db, money, run.claims)
    await settle(money, run.claims, await hold(money, run.claims, 1000), 400)
    async with db.tenant_session(acme.id) as session:
        with pytest.raises(ModelCallsOpen):
            await budgets.release(session, control(acme.id), run.item.id)
        await session.rollback()
    await ModelCloser(db, money).close(acme.id, run.item.id)
    async with db.tenant_session(acme.id) as session:
        await budgets.release(session, control(acme.id), run.item.id)
        await budgets.reserve(session, control(acme.id), run.item.id)
    end_run(database, run)
    await finish(db, acme, run)
    item = await item_of(db, acme, run.item.id)
    async with db.tenant_session(acme.id) as session:
        windows = await (await session.connection()).execute(
            text("select spent_nano, reserved_nano from budget_windows where tenant_id = :t"), {"t": acme.id}
        )
        assert {tuple(row) for row in windows} == {(item.cost_nano, 0)}
    assert (item.cost_nano or 0) > 400


@pytest.mark.parametrize("what", ["attempt", "reservation", "no_grant", "ended"])
async def test_only_a_live_run_with_a_grant_opens(
    db: Database, database: TestDatabase, acme: Company, money: LlmMoney, run: LiveModelRun, what: str
) -> None:
    changes: dict[str, Any] = {"attempt": {"attempt": 2}, "reservation": {"reservation": new_id()}}.get(what, {})
    if what == "no_grant":
        tamper(database, "update work_items set spec = spec - 'llm'")
    if what == "ended":
        outlive_lease(database, run.ref.run_id)
        end_run(database, run)
    with pytest.raises(Forbidden) as refused:
        await opened(db, money, run.claims.model_copy(update=changes))
    assert refused.value.extra["code"] == {"attempt": "ended"}.get(what, what)


async def test_postgres_away_leaves_the_entries(
    db: Database, database: TestDatabase, money: LlmMoney, run: LiveModelRun
) -> None:
    await opened(db, money, run.claims)
    await settle(money, run.claims, await hold(money, run.claims, 1000), 100)
    away = Database(database.app_url.replace(f":{database.server.port}/", ":1/"))
    with pytest.raises(SQLAlchemyError):
        await Flusher(away, money).flush()
    await away.close()
    assert len(await money.entries()) == 1


async def test_an_entry_that_postgres_never_takes_is_put_aside(
    db: Database, acme: Company, money: LlmMoney, run: LiveModelRun, valkey: ValkeyServer
) -> None:
    await opened(db, money, run.claims)
    good = await hold(money, run.claims, 1000)
    claims = run.claims.model_copy(update={"work_item": new_id()})
    bad = await hold(money, claims, 1000)
    await settle(money, claims, bad, 10)
    await settle(money, run.claims, good, 10)
    await Flusher(db, money).flush()
    assert [row.call_id for row in await ledger(db, acme, run.item.id)] == [good]
    assert await money.entries() == []
    with redis.Redis.from_url(valkey.url) as client:
        assert client.xlen("money:ledger:refused") == 1
    # What is not in the ledger is charged all the same.
    await ModelCloser(db, money).close(acme.id, run.item.id)
    assert sum(row.amount_nano for row in await ledger(db, acme, run.item.id)) == 20


@pytest.mark.parametrize("wrong", [{}, {"about": "{"}, {"about": '{"tenant_id": 5}'}, {"about": "[]"}])
async def test_an_entry_that_is_none_is_in_nobodys_way(
    db: Database, acme: Company, money: LlmMoney, run: LiveModelRun, valkey: ValkeyServer, wrong: dict[str, str]
) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        client.xadd("money:ledger", {"call": "x", **wrong})
        await opened(db, money, run.claims)
        await settle(money, run.claims, await hold(money, run.claims, 1000), 10)
        await Flusher(db, money).flush()
        assert client.xlen("money:ledger:refused") == 1
    assert [row.amount_nano for row in await ledger(db, acme, run.item.id)] == [10]


async def test_a_bug_does_not_end_the_moving(monkeypatch: pytest.MonkeyPatch, db: Database, money: LlmMoney) -> None:
    flusher, stop = Flusher(db, money), asyncio.Event()

    async def breaks() -> int:
        stop.set()
        raise AssertionError

    monkeypatch.setattr(flusher, "flush", breaks)
    await flusher.run(stop)  # and once more at the end, as it does


def line(run: LiveModelRun, call: UUID, amount: int | None, identity: str, held: int = 1000) -> dict[str, Any]:
    about = about_call(about_run(run.claims), CARD, PRICES, streamed=False, started_at=1e9)
    facts = facts_of_call(status=200)
    return {
        "call": str(call), "amount": amount, "held": held, "tokens": 5, "kind": "final", "about": about,
        "facts": facts, "identity": identity,
    }  # fmt: skip


async def test_the_spool_brings_a_charge_in_once(
    db: Database, acme: Company, money: LlmMoney, run: LiveModelRun, tmp_path: Path
) -> None:
    await opened(db, money, run.claims)
    call, identity = await hold(money, run.claims, 1000), await money.identity()
    gone, ours = LlmSpool(tmp_path / "spool"), LlmSpool(tmp_path / "spool")
    await gone.add(line(run, call, 70, identity))
    flusher = Flusher(db, money, ours)
    await flusher.flush()
    assert await ledger(db, acme, run.item.id) == []  # whose file it is lives
    gone.close()
    [file] = (tmp_path / "spool").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(file.read_bytes() + file.read_bytes() + b'{"half')
    await flusher.flush()
    await flusher.flush()
    assert [row.amount_nano for row in await ledger(db, acme, run.item.id)] == [70]
    assert list((tmp_path / "spool").iterdir()) == []


async def test_the_spool_goes_to_postgres_where_that_redis_is_gone(
    db: Database, acme: Company, money: LlmMoney, run: LiveModelRun, tmp_path: Path
) -> None:
    await opened(db, money, run.claims)
    spool = LlmSpool(tmp_path / "spool")
    before, unsure, late = (new_id() for _ in range(3))
    await spool.add(line(run, before, 70, "another/life"))
    await spool.add(line(run, unsure, 0, "another/life", held=0))
    await Flusher(db, money, spool).flush()
    assert [(row.call_id, row.amount_nano) for row in await ledger(db, acme, run.item.id)] == [(before, 70)]
    # After the reservation is closed with all of its grant, what comes is noted, and charged no more.
    async with db.session_for(service_principal("control", acme.id)) as session:
        from models.repositories import llm_ledger
        from models.services.llm_openings import close_reservation, token_of

        [one] = await llm_ledger.open_of_item(session, acme.id, run.item.id)
        await close_reservation(
            session, control(acme.id), run.item.id, one.reservation_id, token_of(one.opened_at), None, "lost"
        )
    await spool.add(line(run, late, 70, "another/life"))
    await Flusher(db, money, spool).flush()
    rows = {row.call_id: row for row in await ledger(db, acme, run.item.id)}
    assert rows[late].amount_nano == 0
    assert "after the reservation was closed" in rows[late].detail
    assert sum(row.amount_nano for row in rows.values()) == GRANT
