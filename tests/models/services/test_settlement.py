"""What a run costs when its attempts do not end as they should."""

from __future__ import annotations

import pytest
from sqlmodel import select

from models.domain.work_item import WorkItemStatus
from models.services import lifecycle, settlement, work_items
from models.services.run_backend import RunBackend
from models.storage.blobs import BlobStore
from models.storage.db import Database
from models.tables.money import ChargeRow, ReservationRow
from models.tables.work import WorkItemRow
from sandbox.link.backend import ConnectedRuntime
from sandbox.link.messages import RunRef
from sandbox.spec import RunOutcome, RunResult
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.runs import claim, claimed, mint, new_runtime, outlive_lease, row_of, tamper
from tests.fixtures.work import Work, control
from tests.models.services.test_leases import lose


@pytest.fixture
def backend(db: Database, tmp_path_factory: pytest.TempPathFactory) -> RunBackend:
    return RunBackend(db, BlobStore(f"file://{tmp_path_factory.mktemp('blobs')}"), None)


async def started(
    db: Database, work: Work, company: Company, backend: RunBackend
) -> tuple[ConnectedRuntime, WorkItemRow, RunRef]:
    runtime = await new_runtime(db, company)
    item, ref = await claimed(db, work, company, runtime)
    await backend.on_started(runtime, ref, "c0ffee")
    return runtime, item, ref


async def finished(db: Database, company: Company, item: WorkItemRow) -> WorkItemRow:
    async with db.tenant_session(company.id) as session:
        return await settlement.finish(session, control(company.id), item.id)


async def test_a_run_that_goes_silent_is_paid_whole_also_when_it_was_to_be_killed(
    db: Database, database: TestDatabase, acme: Company, work: Work, backend: RunBackend
) -> None:
    _, item, ref = await started(db, work, acme, backend)
    async with db.session_for(acme.requester) as session:
        await work_items.request_cancel(session, acme.requester, item.id)
    outlive_lease(database, ref.run_id)
    await lose(db, acme, ref)
    ended = await finished(db, acme, item)
    assert (ended.status, ended.cost_nano) == ("cancelled", item.worst_case_nano)


async def lost(db: Database, database: TestDatabase, company: Company, ref: RunRef, seconds: int) -> None:
    """The attempt ran for so long, and its runtime is gone."""
    outlive_lease(database, ref.run_id)
    tamper(database, "update runs set started_at = lease_until - make_interval(secs => %s)", seconds)
    assert await lose(db, company, ref) == "requeued"


async def test_what_a_lost_attempt_used_is_paid_too(
    db: Database, database: TestDatabase, acme: Company, work: Work, backend: RunBackend
) -> None:
    runtime, item, ref = await started(db, work, acme, backend)
    await lost(db, database, acme, ref, 100)
    assert (await row_of(db, acme, ref.run_id)).lost_seconds == 100
    await mint(db, acme, item.id)
    await claim(db, runtime, ref.run_id, 2)
    again = RunRef(run_id=ref.run_id, attempt=2)
    await backend.on_started(runtime, again, "c0ffee")
    row = await row_of(db, acme, ref.run_id)
    result = RunResult(
        outcome=RunOutcome.SUCCEEDED, wall_seconds=20, started_at=row.started_at, ended_at=row.started_at
    )
    await backend.on_ended(runtime, again, result)
    ended = await finished(db, acme, item)
    assert ended.cost_nano == item.worst_case_nano * 120 // 600


async def test_what_a_lost_attempt_used_is_paid_when_nothing_follows(
    db: Database, database: TestDatabase, acme: Company, work: Work, backend: RunBackend
) -> None:
    _, item, ref = await started(db, work, acme, backend)
    await lost(db, database, acme, ref, 60)
    async with db.tenant_session(acme.id) as session:
        await lifecycle.close(session, control(acme.id), item.id, WorkItemStatus.CANCELLED, "enough")
        charges = (await session.exec(select(ChargeRow))).all()
        assert [charge.amount_nano for charge in charges] == [item.worst_case_nano // 10]
        assert (await session.exec(select(ReservationRow.phase))).one() == "settled"


async def test_what_was_seen_to_start_is_not_run_again_as_if_it_had_not(
    db: Database, database: TestDatabase, acme: Company, work: Work, backend: RunBackend
) -> None:
    runtime, item, ref = await started(db, work, acme, backend)
    tamper(database, "update assistants set restartable = false")
    await backend.on_ended(runtime, ref, RunResult(outcome=RunOutcome.NOT_STARTED))
    row = await row_of(db, acme, ref.run_id)
    assert (row.status, row.outcome) == ("ended", "runtime_gone")
    assert (await finished(db, acme, item)).cost_nano == item.worst_case_nano
