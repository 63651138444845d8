"""The steps that settle money close what an item may still spend on models, and wait for it by their retries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import pytest

from activities.reconcile import Reconciliation, WorkflowEyes
from activities.signatures import CloseInput, ReconcileInput, WorkItemInput
from activities.work_item import WorkItems
from models.domain.work_item import WorkItemStatus
from models.services.llm_closing import ModelCloser
from models.services.llm_openings import ModelCallsOpen
from models.storage.db import Database
from models.storage.llm_money import LlmMoney
from sandbox.spec import RunOutcome, RunResult
from tests.fixtures.companies import Company
from tests.fixtures.model_calls import GRANT, LiveModelRun, hold, ledger, live_run, opened, settle
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.runs import item_of, tamper
from tests.fixtures.valkey import ValkeyServer
from tests.fixtures.work import Work


@pytest.fixture
async def money(valkey: ValkeyServer) -> AsyncIterator[LlmMoney]:
    made = LlmMoney(valkey.url)
    yield made
    await made.shut()


@pytest.fixture
async def run(db: Database, database: TestDatabase, work: Work, acme: Company, money: LlmMoney) -> LiveModelRun:
    made = await live_run(db, database, work, acme)
    await opened(db, money, made.claims)
    await settle(money, made.claims, await hold(money, made.claims, 1000), 300)
    return made


def end(database: TestDatabase, run: LiveModelRun) -> None:
    result = RunResult(outcome=RunOutcome.SUCCEEDED, wall_seconds=1.0).model_dump_json()
    tamper(
        database,
        "update runs set status = 'ended', outcome = 'succeeded', result = %s, started_at = now(), ended_at = now()"
        " where id = %s",
        result,
        run.ref.run_id,
    )


def step(run: LiveModelRun, name: str) -> WorkItemInput:
    return WorkItemInput(tenant_id=run.claims.tenant, work_item_id=run.item.id, op_id=f"test/{name}")


async def test_finishing_waits_for_calls_under_way_and_settles_all(
    db: Database, database: TestDatabase, acme: Company, money: LlmMoney, run: LiveModelRun
) -> None:
    under_way = await hold(money, run.claims, 1000)
    end(database, run)
    items = WorkItems(db, ModelCloser(db, money))
    for _ in range(2):
        with pytest.raises(ModelCallsOpen, match="1 model calls are under way"):
            await items.finish_work_item(step(run, "finish"))
    assert not WorkItemStatus((await item_of(db, acme, run.item.id)).status).is_final
    await settle(money, run.claims, under_way, 200)
    await items.finish_work_item(step(run, "finish"))
    view = await items.finish_work_item(step(run, "finish"))
    assert view.status is WorkItemStatus.SUCCEEDED
    assert [row.amount_nano for row in await ledger(db, acme, run.item.id)] == [300, 200]
    assert ((await item_of(db, acme, run.item.id)).cost_nano or 0) > 500


async def test_closing_an_item_pays_for_what_earlier_attempts_spent(
    db: Database, database: TestDatabase, acme: Company, money: LlmMoney, run: LiveModelRun
) -> None:
    tamper(database, "update runs set status = 'queued'")
    tamper(database, "update work_items set status = 'queued'")
    given = CloseInput(
        tenant_id=acme.id, work_item_id=run.item.id, status=WorkItemStatus.CANCELLED, reason="no", op_id="test/close"
    )
    view = await WorkItems(db, ModelCloser(db, money)).close_work_item(given)
    assert view.status is WorkItemStatus.CANCELLED
    assert (await item_of(db, acme, run.item.id)).cost_nano == 300


async def test_without_redis_what_is_open_counts_as_spent(
    db: Database, database: TestDatabase, acme: Company, run: LiveModelRun
) -> None:
    end(database, run)
    await WorkItems(db).finish_work_item(step(run, "finish"))
    [row] = await ledger(db, acme, run.item.id)
    assert (row.kind, row.amount_nano) == ("unaccounted", GRANT)


async def test_reconciliation_closes_what_an_ended_item_has_left_open(
    db: Database, system_db: Database, database: TestDatabase, acme: Company, money: LlmMoney, run: LiveModelRun
) -> None:
    end(database, run)
    tamper(database, "update work_items set status = 'halted', ended_at = now()")
    reconciliation = Reconciliation(db, system_db, cast("WorkflowEyes", None), ModelCloser(db, money))
    assert (await reconciliation.reconcile_money(ReconcileInput())).released == 1
    item = await item_of(db, acme, run.item.id)
    assert item.cost_nano == 300
    tamper(database, "update llm_openings set closed_at = null")
    await reconciliation.reconcile_money(ReconcileInput())
    with database.admin() as admin:
        assert admin.execute("select count(*) from llm_openings where closed_at is null").fetchone() == (0,)
    assert [row.amount_nano for row in await ledger(db, acme, run.item.id)] == [300]
