"""Runs whose agents only wait for people: paused, resumed, suspended and gone on with, on real PostgreSQL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models.domain.action import AgentCaller
from models.domain.approval import Verdict
from models.domain.principal import service_principal
from models.domain.run import RunStatus
from models.domain.work_item import WorkItemStatus
from models.rules.waiting import Waiting, WaitingStep
from models.services import approvals, leases, lifecycle, waiting, work_items
from models.services.continuations import continuation_of
from models.services.run_backend import RunBackend
from models.storage.blobs import BlobStore
from models.storage.db import Database
from sandbox.link.backend import ConnectedRuntime
from sandbox.link.messages import RunRef
from sandbox.spec import RunOutcome, RunResult, continuation_digest
from tests.fixtures.agents import ask, caller_of, outbox, request, set_policy
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.runs import VERIFIER, audited, claim, claimed, item_of, mint, new_runtime, row_of, tamper
from tests.fixtures.work import Work, control


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(f"file://{tmp_path}/blobs")


class Waiter:
    """A run that has started, its agent, and time that passes."""

    def __init__(
        self, db: Database, database: TestDatabase, company: Company, runtime: ConnectedRuntime, caller: AgentCaller
    ) -> None:
        self.db, self.database, self.company, self.runtime, self.caller = db, database, company, runtime, caller
        assert caller.run_id is not None
        assert caller.work_item_id is not None
        self.run_id, self.item_id = caller.run_id, caller.work_item_id

    @classmethod
    async def of(cls, db: Database, database: TestDatabase, company: Company, work: Work, **rules: Any) -> Waiter:
        set_policy(database, company, **{"grace_seconds": 60, **rules})
        runtime = await new_runtime(db, company)
        item, ref = await claimed(db, work, company, runtime)
        tamper(database, "update runs set status = 'running', started_at = now() where id = %s", ref.run_id)
        return cls(db, database, company, runtime, await caller_of(db, company, item, ref.run_id))

    def pass_time(self, seconds: int) -> None:
        tamper(self.database, "update actions set created_at = created_at - make_interval(secs => %s)", seconds)

    async def due(self) -> tuple[dict[RunRef, Waiting], int]:
        async with self.db.tenant_session(self.company.id) as session:
            standing, changes = await waiting.due(session, self.company.id)
        return standing, len(changes)

    async def step(self) -> WaitingStep | None:
        principal = service_principal("broker", self.company.id)
        async with self.db.session_for(principal) as session:
            return await waiting.step(session, principal, self.item_id, self.run_id)

    async def ends(self, blobs: BlobStore, outcome: RunOutcome = RunOutcome.SUSPENDED, attempt: int = 1) -> None:
        backend = RunBackend(self.db, blobs, None)
        result = RunResult(outcome=outcome, wall_seconds=7.2)
        await backend.on_ended(self.runtime, RunRef(run_id=self.run_id, attempt=attempt), result)

    async def decide(self, approval_id: Any, verdict: Verdict = Verdict.APPROVE) -> None:
        who = self.company.approver
        await approvals.decide(self.db, who, None, approval_id, verdict=verdict, reason="seen")

    async def status(self) -> str:
        return (await item_of(self.db, self.company, self.item_id)).status

    async def suspended(self) -> bool:
        async with self.db.session_for(self.company.requester) as session:
            return (await work_items.view(session, self.item_id)).suspended


async def test_an_agent_that_waits_is_paused_after_the_grace_and_goes_on_when_it_is_answered(
    db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    waiter = await Waiter.of(db, database, acme, work)
    answer = await ask(db, waiter.caller)
    assert await waiter.due() == ({}, 0)
    waiter.pass_time(61)
    assert (await waiter.due())[1] == 1
    assert [await waiter.step(), await waiter.step()] == [WaitingStep.PAUSE, None]
    assert await waiter.due() == ({RunRef(run_id=waiter.run_id, attempt=1): Waiting.PAUSED}, 0)
    await waiter.decide(answer.approval_id)
    assert await waiter.step() is WaitingStep.RESUME
    assert await waiter.due() == ({}, 0)
    assert len(await audited(db, acme, "run.paused")) == len(await audited(db, acme, "run.resumed")) == 1


async def test_an_agent_that_goes_on_with_other_work_is_left_alone(
    db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    waiter = await Waiter.of(db, database, acme, work)
    await ask(db, waiter.caller, request(mode="async"))
    waiter.pass_time(3600)
    assert await waiter.due() == ({}, 0)
    assert await waiter.step() is None


async def test_a_suspended_run_goes_on_with_the_decision_under_a_warrant_that_names_it(
    db: Database, database: TestDatabase, acme: Company, work: Work, blobs: BlobStore
) -> None:
    waiter = await Waiter.of(db, database, acme, work, while_waiting="suspend")
    answer = await ask(db, waiter.caller, key="pay-42")
    waiter.pass_time(61)
    assert await waiter.step() is WaitingStep.SUSPEND
    await waiter.ends(blobs)
    run = await row_of(db, acme, waiter.run_id)
    assert (run.status, run.waiting, run.lost_seconds) == (RunStatus.QUEUED, Waiting.SUSPENDED, 8)
    assert (await waiter.status(), await waiter.suspended()) == ("awaiting_action", True)
    assert (await mint(db, acme, waiter.item_id)).state == "ended", "nobody may claim it while people are asked"
    await waiter.decide(answer.approval_id, Verdict.REJECT)
    assert (await waiter.status(), await waiter.suspended()) == ("queued", False)
    assert {"work_item_id": str(waiter.item_id)} in await outbox(db, acme, "signal_work_item")
    await mint(db, acme, waiter.item_id)
    second = await claim(db, waiter.runtime, waiter.run_id, 2)
    assert second.state is leases.ClaimState.CLAIMED, second.words
    assert second.continuation is not None
    (decision,) = json.loads(second.continuation.decisions)
    assert (decision["idempotency_key"], decision["status"], decision["words"]) == ("pay-42", "denied", "seen")
    assert VERIFIER.verify(second.token)["continuation"] == continuation_digest(second.continuation)


async def test_a_continuation_changed_behind_the_warrant_is_not_gone_on_from(
    db: Database, database: TestDatabase, acme: Company, work: Work, blobs: BlobStore
) -> None:
    waiter = await Waiter.of(db, database, acme, work, while_waiting="suspend")
    answer = await ask(db, waiter.caller)
    waiter.pass_time(61)
    await waiter.step()
    await waiter.ends(blobs)
    await waiter.decide(answer.approval_id)
    await mint(db, acme, waiter.item_id)
    tamper(database, "update runs set continuation = jsonb_set(continuation, '{decisions}', '\"[]\"')")
    refused = await claim(db, waiter.runtime, waiter.run_id, 2)
    assert refused.state is leases.ClaimState.STALE
    assert "continuation" in refused.words


async def test_people_may_decide_while_the_sandbox_is_being_ended(
    db: Database, database: TestDatabase, acme: Company, work: Work, blobs: BlobStore
) -> None:
    waiter = await Waiter.of(db, database, acme, work, while_waiting="suspend")
    answer = await ask(db, waiter.caller)
    waiter.pass_time(61)
    await waiter.step()
    await waiter.decide(answer.approval_id)
    assert await waiter.status() == "running"
    await waiter.ends(blobs)
    run = await row_of(db, acme, waiter.run_id)
    assert (await waiter.status(), run.status, run.waiting) == ("queued", RunStatus.QUEUED, None)
    assert continuation_of(run) is not None


async def test_a_suspension_that_nobody_ordered_is_a_loss(
    db: Database, database: TestDatabase, acme: Company, work: Work, blobs: BlobStore
) -> None:
    waiter = await Waiter.of(db, database, acme, work)
    await waiter.ends(blobs)
    run = await row_of(db, acme, waiter.run_id)
    assert (run.status, run.waiting, run.continuation) == (RunStatus.QUEUED, None, None), "tried again from the start"


async def test_a_cancel_while_it_is_suspended_ends_the_item(
    db: Database, database: TestDatabase, acme: Company, work: Work, blobs: BlobStore
) -> None:
    waiter = await Waiter.of(db, database, acme, work, while_waiting="suspend")
    await ask(db, waiter.caller)
    waiter.pass_time(61)
    await waiter.step()
    await waiter.ends(blobs)
    async with db.tenant_session(acme.id) as session:
        item = await lifecycle.close(session, control(acme.id), waiter.item_id, WorkItemStatus.CANCELLED, "no more")
    assert item.status == "cancelled"
    assert item.cost_nano == 8 * 20_000, "what ran is paid"
    assert (await row_of(db, acme, waiter.run_id)).status == RunStatus.ENDED


async def test_the_last_attempt_is_paused_and_not_suspended(
    db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    waiter = await Waiter.of(db, database, acme, work, while_waiting="suspend")
    await ask(db, waiter.caller)
    waiter.pass_time(61)
    tamper(database, "update runs set attempt = 9")
    tamper(database, "update actions set attempt = 9")
    assert await waiter.step() is WaitingStep.PAUSE
