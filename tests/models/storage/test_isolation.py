"""What one tenant can reach of another: nothing, also over shared connections."""

from __future__ import annotations

import asyncio
import random
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from models.services import work_items
from models.services.ids import new_id
from models.storage.db import Database, TenantSession
from models.tables.work import WorkItemRow
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.work import Work

TABLES = ("tenants", "principals", "assistants", "policy_versions", "work_items", "budgets", "audit_events", "outbox")


async def count(session: AsyncSession, table: str, tenant_id: UUID) -> int:
    connection = await session.connection()
    statement = text(f"select count(*) from {table} where tenant_id = :tenant")
    return (await connection.execute(statement, {"tenant": tenant_id})).scalar_one()


@pytest.mark.parametrize("table", TABLES)
async def test_a_subsidiary_sees_no_row_of_another(
    db: Database, acme: Company, globex: Company, work: Work, table: str
) -> None:
    await work.create(globex.requester)
    async with db.session_for(globex.requester) as session:
        assert await count(session, table, globex.id) > 0, "control: its own tenant sees it"
    async with db.session_for(acme.requester) as session:
        assert await count(session, table, globex.id) == 0


async def test_the_holding_sees_its_companies_and_they_not_the_holding(
    db: Database, holding: Company, acme: Company, work: Work
) -> None:
    item = await work.create(acme.requester)
    mine = await work.create(holding.requester)
    async with db.session_for(holding.auditor) as session:
        assert (await work_items.read(session, holding.auditor, item.id)).id == item.id
    async with db.session_for(acme.auditor) as session:
        assert await session.get(WorkItemRow, (holding.id, mine.id)) is None


async def test_the_holding_can_neither_lock_nor_write_what_it_sees(
    db: Database, holding: Company, acme: Company, work: Work
) -> None:
    item = await work.create(acme.requester)
    async with db.session_for(holding.admin) as session:
        connection = await session.connection()
        key = {"id": item.id}
        seen = await connection.execute(text("select 1 from work_items where id = :id"), key)
        locked = await connection.execute(text("select 1 from work_items where id = :id for update"), key)
        changed = await connection.execute(text("update work_items set title = 'mine' where id = :id"), key)
        assert (len(seen.all()), len(locked.all()), changed.rowcount) == (1, 0, 0)


@pytest.mark.parametrize("statement", [
    "insert into webhooks (tenant_id, id, url, secret) values (:other, :id, 'https://example.com', 'x')",
    "insert into audit_events select :other, 1, now(), 'x', null, 'x', 'x', null, 'x', 'x', '{}', '', ''",
    "insert into outbox (tenant_id, id, kind, payload) values (:other, :id, 'webhook', '{}')",
    "insert into decisions select :other, :id, :id, :other, :id, 's', 'n', null, true, 'approve', '', null, 'api', ''",
    "update work_items set tenant_id = :other",
])  # fmt: skip
async def test_nothing_can_be_written_into_another_tenant(
    db: Database, acme: Company, globex: Company, work: Work, statement: str
) -> None:
    await work.create(acme.requester)
    with pytest.raises(ProgrammingError, match=r"row-level security|violates row"):  # noqa: PT012
        async with db.session_for(acme.requester) as session:
            connection = await session.connection()
            await connection.execute(text(statement), {"other": globex.id, "id": new_id()})


async def test_a_foreign_key_does_not_reach_into_another_tenant(db: Database, acme: Company, globex: Company) -> None:
    with pytest.raises(DBAPIError, match="foreign key"):  # noqa: PT012
        async with db.session_for(acme.requester) as session:
            connection = await session.connection()
            await connection.execute(
                text(
                    "insert into budgets (tenant_id, id, scope, assistant_id, window_kind, limit_nano)"
                    " values (:tenant, :id, 'assistant', :foreign, 'day', 1)"
                ),
                {"tenant": acme.id, "id": new_id(), "foreign": globex.assistant_id},
            )


async def test_hundreds_of_interleaved_transactions_leak_nothing(
    database: TestDatabase, acme: Company, globex: Company, work: Work
) -> None:
    for _ in range(3):
        await work.create(acme.requester)
    await work.create(globex.requester)
    expected = {acme.id: 3, globex.id: 1}
    shared = Database(database.app_url, pool_size=3)
    seen: list[tuple[UUID, set[UUID], int]] = []

    async def one(company: Company, fails: bool) -> None:
        try:
            async with shared.session_for(company.requester) as session:
                connection = await session.connection()
                rows = (await connection.execute(text("select tenant_id from work_items"))).scalars().all()
                seen.append((company.id, set(rows), len(rows)))
                await asyncio.sleep(random.random() / 500)
                if fails:
                    raise LookupError
        except LookupError:
            pass

    chance = random.Random(7)
    await asyncio.gather(*(one(chance.choice([acme, globex]), chance.random() < 0.3) for _ in range(400)))
    assert len(seen) == 400
    assert all(tenants == {tenant} and number == expected[tenant] for tenant, tenants, number in seen)
    async with shared.engine.connect() as connection:
        left = (await connection.execute(text("select current_setting('app.current_tenant', true)"))).scalar()
        rows = (await connection.execute(text("select count(*) from work_items"))).scalar()
    await shared.close()
    assert (left or "", rows) == ("", 0)


async def test_a_session_without_a_tenant_raises_before_its_first_statement(db: Database) -> None:
    async with AsyncSession(db.engine, sync_session_class=TenantSession) as session:
        with pytest.raises(RuntimeError, match="bound to no tenant"):
            await session.connection()
    assert issubclass(TenantSession, Session)


async def test_the_system_role_finds_and_cannot_act(
    system_db: Database, acme: Company, globex: Company, work: Work
) -> None:
    await work.create(acme.requester)
    await work.create(globex.requester)
    found = await system_db.rows("select distinct tenant_id from work_items")
    assert {row["tenant_id"] for row in found} == {acme.id, globex.id}
    for statement in (
        "update work_items set title = ''",
        "select * from principals",
        "select * from warrants",
        "insert into outbox (tenant_id, id, kind, payload) select tenant_id, gen_random_uuid(), 'x', '{}' from tenants",
    ):
        with pytest.raises(ProgrammingError, match="permission denied"):
            await system_db.rows(statement)


async def test_halts_and_the_everything_budget_are_written_by_their_functions_alone(
    db: Database, acme: Company
) -> None:
    for statement in (
        "update halts set active = false",
        "insert into halts (scope, key) values ('everything', 'everything')",
        "update everything_budgets set limit_nano = 9",
        "select set_everything_budget('month', 9, 'me')",
        "select set_halt('everything', null, null, true, 'kill', '', '')",
        "insert into tenants (tenant_id, slug, name, kind) values (gen_random_uuid(), 'x', 'x', 'holding')",
        "update policy_versions set source = ''",
        "update decisions set verdict = 'approve'",
        "delete from decisions",
        "update charges set amount_nano = 0",
        "update risk_assessments set level = 'L0'",
        "delete from work_items",
    ):
        with pytest.raises(ProgrammingError, match=r"permission denied|only the holding"):
            async with db.session_for(acme.admin) as session:
                await (await session.connection()).execute(text(statement))


async def test_an_error_shows_no_value_of_its_statement(db: Database, acme: Company) -> None:
    with pytest.raises(DBAPIError) as raised:
        async with db.session_for(acme.admin) as session:
            await (await session.connection()).execute(text("select 1 / 0, :token"), {"token": "a-warrant"})
    assert "a-warrant" not in str(raised.value)


@pytest.mark.parametrize(
    "statement",
    [
        "select free_everything('month', '2026-11', 0, false, 5)",
        "select free_everything('month', '2026-11', 5, false, -5)",
        "select free_everything('month', '2026-11', -5, false, -5)",
        "select claim_everything('month', '2026-11', -5)",
        "select hold_everything('month', '2026-11', -5, false, 0)",
    ],
)
async def test_everythings_windows_take_no_figure_that_no_hold_has(db: Database, acme: Company, statement: str) -> None:
    with pytest.raises(DBAPIError, match=r"more is spent|not negative"):
        async with db.session_for(acme.admin) as session:
            await (await session.connection()).execute(text(statement))


async def test_a_month_that_began_in_the_default_partition_holds_no_other_up(
    system_db: Database, database: TestDatabase
) -> None:
    with database.admin() as admin:
        admin.execute(
            "do $$ declare p text; begin for p in select inhrelid::regclass::text from pg_inherits"
            " where inhparent = 'audit_events'::regclass and inhrelid::regclass::text <> 'audit_events_default'"
            " loop execute 'alter table audit_events detach partition ' || p; execute 'drop table ' || p;"
            " end loop; end $$"
        )
        admin.execute(
            "insert into audit_events select tenant_id, 1, now(), 'x', null, 'x', 'x', null, 'x', 'x', '{}', '', 'x'"
            " from tenants limit 1"
        )
    await system_db.change("select make_audit_partitions()")
    found = await system_db.rows("select count(*) as made from pg_inherits where inhparent = 'audit_events'::regclass")
    assert found[0]["made"] == 4
