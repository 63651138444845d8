"""Reconciliation against real rows, with nobody to ask about workflows."""

from __future__ import annotations

from typing import cast

from sqlmodel import select

from activities.reconcile import Reconciliation, WorkflowEyes
from activities.signatures import ReconcileInput
from models.storage.db import Database
from models.tables.money import BudgetWindowRow, ReservationRow
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
