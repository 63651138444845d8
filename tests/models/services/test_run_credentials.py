from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy import text

from models.domain.errors import DependencyAway, Forbidden, Unauthenticated
from models.services import halt, work_items
from models.services.ids import new_id
from models.services.run_credentials import LiveRuns, RunClaims, RunWarrants, verify_run_warrant
from models.storage.db import Database
from models.tables.work import WorkItemRow
from sandbox.link.messages import RunRef
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.runs import SIGNER, VERIFIER, claimed, new_runtime, outlive_lease, tamper
from tests.fixtures.work import Work


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def token_of(db: Database, company: Company, run_id: UUID) -> str:
    async with db.tenant_session(company.id) as session:
        found = await (await session.connection()).execute(
            text("select token from warrants where run_id = :run order by attempt desc limit 1"), {"run": run_id}
        )
        return found.scalar_one()


async def a_live_run(db: Database, company: Company, work: Work) -> tuple[WorkItemRow, RunRef, RunClaims]:
    item, ref = await claimed(db, work, company, await new_runtime(db, company))
    return item, ref, verify_run_warrant(VERIFIER, await token_of(db, company, ref.run_id))


async def code_of(runs: LiveRuns, claims: RunClaims) -> str:
    with pytest.raises(Forbidden) as refused:
        await runs.check(claims)
    return refused.value.extra["code"]


async def test_a_live_runs_warrant_is_its_credential(db: Database, acme: Company, work: Work) -> None:
    item, ref, claims = await a_live_run(db, acme, work)
    run = await LiveRuns(db).check(claims)
    assert (run.run_id, run.work_item_id, run.reservation_id) == (ref.run_id, item.id, claims.reservation)


@pytest.mark.parametrize("token", ["", "a.b.c", SIGNER.sign({"aud": "run"}), SIGNER.sign({"aud": "effect"})])
def test_other_tokens_are_nobodys(token: str) -> None:
    with pytest.raises(Unauthenticated):
        verify_run_warrant(VERIFIER, token)


async def test_another_audience_is_no_credential(db: Database, acme: Company, work: Work) -> None:
    _, _, claims = await a_live_run(db, acme, work)
    with pytest.raises(Unauthenticated, match="effect"):
        verify_run_warrant(VERIFIER, SIGNER.sign({**claims.model_dump(mode="json"), "aud": "effect"}))


async def test_a_token_is_verified_once(db: Database, acme: Company, work: Work) -> None:
    _, ref, claims = await a_live_run(db, acme, work)
    warrants, token = RunWarrants(VERIFIER, most=1), await token_of(db, acme, ref.run_id)
    assert warrants.claims(token) is warrants.claims(token)
    assert warrants.claims(SIGNER.sign(claims.model_dump(mode="json"))) == claims
    assert warrants.claims(token) == claims


async def test_what_no_longer_holds_is_refused(
    db: Database, database: TestDatabase, acme: Company, globex: Company, work: Work
) -> None:
    item, ref, claims = await a_live_run(db, acme, work)

    async def now(claims: RunClaims) -> str:
        return await code_of(LiveRuns(db), claims)

    assert await now(claims.model_copy(update={"run": new_id()})) == "run"
    assert await now(claims.model_copy(update={"tenant": globex.id})) == "run"
    assert await now(claims.model_copy(update={"work_item": new_id()})) == "run"
    assert await now(claims.model_copy(update={"attempt": 2})) == "attempt"
    assert await now(claims.model_copy(update={"jti": new_id()})) == "warrant"
    async with db.session_for(acme.requester) as session:
        await work_items.request_cancel(session, acme.requester, item.id, "no")
    assert await now(claims) == "cancelled"
    tamper(database, "update work_items set cancel_requested_at = null")
    tamper(database, "update runs set kill_reason = null")
    outlive_lease(database, ref.run_id, 1)
    assert await now(claims) == "lease"
    tamper(database, "update runs set status = 'ended'")
    assert await now(claims) == "ended"


async def test_a_halt_that_kills_voids_one_that_holds_does_not(db: Database, acme: Company, work: Work) -> None:
    _, _, claims = await a_live_run(db, acme, work)
    for mode in (halt.HaltMode.HOLD, halt.HaltMode.KILL):
        async with db.session_for(acme.admin) as session:
            await halt.set_halt(session, acme.admin, scope=halt.HaltScope.TENANT, mode=mode)
        if mode is halt.HaltMode.HOLD:
            assert (await LiveRuns(db).check(claims)).halted
        async with db.session_for(acme.admin) as session:
            await halt.lift(session, acme.admin, scope=halt.HaltScope.TENANT)
    assert await code_of(LiveRuns(db), claims) == "halted"


async def test_a_copy_older_than_five_seconds_allows_nothing(
    db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    _, _, claims = await a_live_run(db, acme, work)
    clock = Clock()
    away = Database(database.app_url.replace(f":{database.server.port}/", ":1/"))
    runs = LiveRuns(db, clock)
    await runs.check(claims)
    runs._db = away
    clock.now += 4.9
    await runs.check(claims)
    clock.now += 0.2
    with pytest.raises(DependencyAway):
        await runs.check(claims)
    await away.close()
