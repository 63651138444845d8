"""Following ends a run only when that was asked for."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.activity import ActivityCancellationDetails
from temporalio.testing import ActivityEnvironment

from activities.following import Following, LostRuns
from activities.signatures import FollowState, RunInput
from models.services.run_backend import RunBackend
from models.storage.blobs import BlobStore
from models.storage.db import Database
from sandbox.link.messages import RunRef
from sandbox.spec import RunOutcome, RunResult
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.runs import claimed, new_runtime, outlive_lease, row_of
from tests.fixtures.work import Work


def given(company: Company, item_id: object, ref: RunRef, op_id: str = "op") -> RunInput:
    return RunInput.model_validate(
        {"tenant_id": company.id, "work_item_id": item_id, "op_id": op_id, **ref.model_dump()}
    )


@pytest.mark.parametrize(
    ("details", "kill_reason"),
    [
        (ActivityCancellationDetails(cancel_requested=True), "cancelled"),
        (ActivityCancellationDetails(worker_shutdown=True), None),
        (ActivityCancellationDetails(reset=True), None),
        (ActivityCancellationDetails(not_found=True), None),
    ],
)
async def test_only_a_cancel_that_was_asked_for_kills(
    db: Database, acme: Company, work: Work, details: ActivityCancellationDetails, kill_reason: str | None
) -> None:
    runtime = await new_runtime(db, acme)
    item, ref = await claimed(db, work, acme, runtime)
    env = ActivityEnvironment()
    following = asyncio.ensure_future(env.run(Following(db, None).follow_run, given(acme, item.id, ref)))
    await asyncio.sleep(0.3)
    env.cancel(details)
    with pytest.raises(asyncio.CancelledError):
        await following
    assert (await row_of(db, acme, ref.run_id)).kill_reason == kill_reason


async def test_following_answers_the_end(db: Database, acme: Company, work: Work, tmp_path: object) -> None:
    runtime = await new_runtime(db, acme)
    item, ref = await claimed(db, work, acme, runtime)
    env = ActivityEnvironment()
    following = asyncio.ensure_future(env.run(Following(db, None).follow_run, given(acme, item.id, ref)))
    backend = RunBackend(db, BlobStore(f"file://{tmp_path}/blobs"), None)
    await backend.on_ended(runtime, ref, RunResult(outcome=RunOutcome.TIMED_OUT, exit_code=137))
    found = await following
    assert (found.state, found.outcome) == (FollowState.ENDED, "timed_out")


async def test_gone_is_said_by_the_databases_clock(
    db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    runtime = await new_runtime(db, acme)
    item, ref = await claimed(db, work, acme, runtime)
    env, lost = ActivityEnvironment(), LostRuns(db)
    assert (await env.run(lost.end_lost_run, given(acme, item.id, ref, "one"))).words == "alive"
    outlive_lease(database, ref.run_id)
    found = await env.run(Following(db, None).follow_run, given(acme, item.id, ref))
    assert found.state is FollowState.GONE
    for _ in range(2):
        ended = await env.run(lost.end_lost_run, given(acme, item.id, ref, "two"))
        assert (ended.state, ended.words) == (FollowState.GONE, "requeued")
    assert (await row_of(db, acme, ref.run_id)).status == "queued"
    again = await env.run(Following(db, None).follow_run, given(acme, item.id, ref))
    assert again.state is FollowState.NOT_STARTED
