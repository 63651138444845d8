from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from models.domain.principal import Principal
from models.domain.views import ChainReport
from models.services import audit, audit_trail
from models.storage.db import Database
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.work import Work


async def verified(db: Database, who: Principal, company: Company) -> ChainReport:
    async with db.session_for(who) as session:
        return await audit_trail.verify(session, who, company.id)


async def lines(db: Database, who: Principal, company: Company) -> list[str]:
    return [line async for line in audit_trail.export(db, who, company.id)]


async def test_a_slow_reader_of_an_export_keeps_no_connection(db: Database, acme: Company) -> None:
    reading = audit_trail.export(db, acme.auditor, acme.id)
    await anext(reading)
    assert db.engine.sync_engine.pool.status().endswith("Current Checked out connections: 0")
    await reading.aclose()


async def test_a_trail_written_by_many_at_once_is_whole(
    db: Database, acme: Company, globex: Company, work: Work
) -> None:
    before = (await verified(db, acme.auditor, acme)).events
    await asyncio.gather(*(work.create(who.requester) for who in [acme, globex] * 15))
    report = await verified(db, acme.auditor, acme)
    assert (report.whole, report.events, report.first_bad_seq) == (True, before + 15, None)
    assert (await verified(db, globex.auditor, globex)).whole
    exported = await lines(db, acme.auditor, acme)
    assert len(exported) == report.head_seq
    assert audit_trail.verify_lines(exported) is None


async def test_the_holding_verifies_a_companys_trail(db: Database, holding: Company, acme: Company, work: Work) -> None:
    await work.create(acme.requester)
    assert (await verified(db, holding.auditor, acme)).whole


async def test_a_transaction_that_fails_leaves_nothing(db: Database, acme: Company) -> None:
    before = await verified(db, acme.auditor, acme)
    with pytest.raises(LookupError):  # noqa: PT012 - the transaction is what raises
        async with db.session_for(acme.admin) as session:
            audit.record(session, acme.admin, kind="test.event", subject="x/1", summary="never")
            raise LookupError
    assert await verified(db, acme.auditor, acme) == before


TAMPERING = {
    "changed": ("update audit_events set summary = 'nothing happened' where tenant_id = %(t)s and seq = 4", 4),
    "changed data": ("update audit_events set data = '{\"x\": 1}' where tenant_id = %(t)s and seq = 4", 4),
    "moved in time": ("update audit_events set occurred_at = now() where tenant_id = %(t)s and seq = 4", 4),
    "removed": ("delete from audit_events where tenant_id = %(t)s and seq = 4", 4),
    "cut off": ("delete from audit_events where tenant_id = %(t)s and seq >= 4", 4),
    "emptied": ("delete from audit_events where tenant_id = %(t)s", 1),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "first_bad"), TAMPERING.values(), ids=TAMPERING.keys())
async def test_a_superusers_tampering_is_found(
    database: TestDatabase, db: Database, acme: Company, statement: str, first_bad: int
) -> None:
    assert (await verified(db, acme.auditor, acme)).whole, "control"
    with database.admin() as admin:
        admin.execute("set session_replication_role = replica")
        assert admin.execute(statement, {"t": acme.id}).rowcount > 0  # pyright: ignore[reportArgumentType, reportCallIssue]
    report = await verified(db, acme.auditor, acme)
    assert (report.whole, report.first_bad_seq) == (False, first_bad)


async def test_an_altered_export_is_found(db: Database, acme: Company) -> None:
    exported = await lines(db, acme.auditor, acme)
    assert audit_trail.verify_lines([*exported[:2], exported[2].replace("added", "shown"), *exported[3:]]) == 3
    assert audit_trail.verify_lines([*exported[:2], *exported[3:]]) == 3


@pytest.mark.parametrize(
    "statement", ["update audit_events set summary = ''", "delete from audit_events", "truncate audit_events"]
)
async def test_nobody_of_ours_changes_an_event(db: Database, owner_db: Database, acme: Company, statement: str) -> None:
    for role in (db, owner_db):
        with pytest.raises(ProgrammingError, match=r"permission denied|append-only"):
            async with role.session_for(acme.admin) as session:
                await (await session.connection()).execute(text(statement))


async def test_the_trail_is_listed_newest_first_in_pages(db: Database, acme: Company, work: Work) -> None:
    item = await work.assessed(acme, "L3")
    async with db.session_for(acme.auditor) as session:
        whole, end = await audit_trail.list_page(session, acme.auditor, limit=200)
        assert end is None
        paged, cursor = [], None
        while True:
            page, cursor = await audit_trail.list_page(session, acme.auditor, cursor=cursor, limit=3)
            paged += page
            if cursor is None:
                break
        assert [event.seq for event in paged] == [event.seq for event in whole] == list(range(len(whole), 0, -1))
        wanted = audit_trail.Filter(kind="work_item.", work_item_id=item.id)
        found, _ = await audit_trail.list_page(session, acme.auditor, wanted)
        assert [event.kind for event in found] == ["work_item.assessing", "work_item.created"]
