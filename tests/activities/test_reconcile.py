"""Reconciliation against real rows, with nobody to ask about workflows."""

from __future__ import annotations

from typing import cast
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlmodel import select

from activities.reconcile import Reconciliation, WorkflowEyes
from activities.signatures import ReconcileInput
from models.services.ids import new_id
from models.services.outbox import OutboxKind, enqueue
from models.storage.db import Database
from models.tables.money import BudgetWindowRow, ReservationRow
from tests.fixtures.agents import ask, elsewhere, request, running
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.runs import queued, tamper
from tests.fixtures.work import Work


async def test_holds_that_outlived_their_work_are_freed(
    db: Database, system_db: Database, database: TestDatabase, acme: Company, globex: Company, work: Work
) -> None:
    for company in (acme, acme, globex):
        await queued(db, work, company)
    tamper(database, "update work_items set status = 'halted', ended_at = now()")
    reconciliation = Reconciliation(db, system_db, cast("WorkflowEyes", None))
    assert (await reconciliation.reconcile_money(ReconcileInput())).released == 3
    assert (await reconciliation.reconcile_money(ReconcileInput())).released == 0
    for company in (acme, globex):
        async with db.tenant_session(company.id) as session:
            assert set((await session.exec(select(ReservationRow.phase))).all()) == {"released"}
            assert set((await session.exec(select(BudgetWindowRow.reserved_nano))).all()) == {0}


async def test_what_was_carried_long_ago_is_forgotten_some_at_a_time(
    db: Database, system_db: Database, database: TestDatabase, acme: Company, globex: Company
) -> None:
    for company in (acme, globex):
        async with db.tenant_session(company.id) as session:
            for _ in range(600):
                enqueue(session, company.id, OutboxKind.SIGNAL_WORK_ITEM, {"work_item_id": str(new_id())})
    kept = {"carried lately": "done_at = now() - interval '29 days'", "never carried": "done_at = null"}
    tamper(database, "update outbox set created_at = now() - interval '90 days', done_at = now() - interval '31 days'")
    for what, change in kept.items():
        tamper(
            database,
            f"update outbox set last_error = '{what}', {change} where (tenant_id, id) ="
            " (select tenant_id, id from outbox where last_error is null limit 1)",
        )
    reconciliation = Reconciliation(db, system_db, cast("WorkflowEyes", None))
    for left in (200, 2, 2):
        await reconciliation.reconcile_money(ReconcileInput())
        with database.admin() as admin:
            assert admin.execute("select count(*) from outbox").fetchone() == (left,)
    with database.admin() as admin:
        assert {row[0] for row in admin.execute("select last_error from outbox")} == set(kept)


async def test_the_application_forgets_nothing(db: Database, system_db: Database, acme: Company) -> None:
    for role, statement in ((db, "select forget_old_records(1)"), (system_db, "delete from outbox")):
        with pytest.raises(ProgrammingError, match="permission denied"):
            await role.change(statement)
    with pytest.raises(ProgrammingError, match="permission denied"):
        async with db.tenant_session(acme.id) as session:
            await (await session.connection()).execute(text("delete from outbox"))


class Eyes:
    """Sees no workflow at all, and starts what it is told to."""

    def __init__(self) -> None:
        self.started: list[tuple[UUID | None, UUID]] = []

    async def describe_approval(self, approval_id: UUID) -> str:
        return "missing"

    async def start_approval(self, tenant_id: UUID, work_item_id: UUID | None, approval_id: UUID) -> bool:
        self.started.append((work_item_id, approval_id))
        return True


async def test_an_actions_approval_whose_workflow_is_lost_has_one_again_and_one_nobody_needs_is_closed(
    db: Database, system_db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    item, caller = await running(db, work, acme)
    inside, outside = await ask(db, caller), await ask(db, elsewhere(acme))
    over = await ask(db, elsewhere(acme), request(target="another"))
    tamper(database, "update actions set status = 'cancelled', ended_at = now() where id = %s", over.id)
    eyes = Eyes()
    found = await Reconciliation(db, system_db, cast("WorkflowEyes", eyes)).reconcile_approvals(ReconcileInput())
    assert (found.seen, found.started, found.settled) == (3, 2, 1)
    assert set(eyes.started) == {(item.id, inside.approval_id), (None, outside.approval_id)}
    with database.admin() as admin:
        row = admin.execute("select status from approvals where id = %s", (over.approval_id,)).fetchone()
    assert row == ("cancelled",)
