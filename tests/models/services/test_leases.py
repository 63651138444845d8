"""Warrants and leases: who may run what, once."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from joserfc.jwk import KeySet, OKPKey

from models.domain.approval import Verdict
from models.domain.errors import Conflict, WarrantRefused
from models.services import approvals, halt, leases, money, runs, warrants, work_items
from models.services.ids import new_id
from models.services.leases import ClaimState, LostState
from models.services.warrant_keys import EdDsaSigner
from models.services.warrants import MintState
from models.storage.db import Database
from sandbox.link.messages import Place, RunRef
from sandbox.warrant import check_warrant
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.runs import (
    SIGNER,
    VERIFIER,
    audited,
    claim,
    claimed,
    item_of,
    mint,
    new_runtime,
    outlive_lease,
    queued,
    row_of,
    tamper,
)
from tests.fixtures.work import Work, asked_about, control


async def test_a_claim_brings_what_the_runtime_checks(db: Database, acme: Company, work: Work) -> None:
    runtime = await new_runtime(db, acme)
    item, run = await queued(db, work, acme)
    minted = await mint(db, acme, item.id)
    assert (minted.state, minted.attempt) == (MintState.MINTED, 1)
    found = await claim(db, runtime, run.id)
    assert found.state is ClaimState.CLAIMED
    assert found.spec is not None
    placement = Place(run_id=run.id, attempt=1, warrant=found.token, spec=found.spec, lease_seconds=120)
    keys = KeySet.import_key_set(json.loads(SIGNER.public_jwks()))
    claims = check_warrant(placement, keys, acme.id, time.time())
    assert claims.run == run.id
    row = await row_of(db, acme, run.id)
    assert (row.status, row.attempt, row.runtime_id, row.broker_id) == ("claimed", 1, runtime.runtime_id, "broker-1")
    assert (await item_of(db, acme, item.id)).status == "running"


async def test_minting_again_answers_the_live_warrant(db: Database, acme: Company, work: Work) -> None:
    item, _ = await queued(db, work, acme)
    first, second = await mint(db, acme, item.id), await mint(db, acme, item.id)
    assert first == second
    assert len(await audited(db, acme, "warrant.minted")) == 1


async def test_of_many_claims_one_wins(db: Database, acme: Company, work: Work) -> None:
    runtimes = [await new_runtime(db, acme, f"host-{number}") for number in range(3)]
    item, run = await queued(db, work, acme)
    await mint(db, acme, item.id)
    found = await asyncio.gather(
        *(claim(db, runtime, run.id, 1, f"broker-{n}") for n in range(4) for runtime in runtimes)
    )
    assert [one.state for one in found].count(ClaimState.CLAIMED) == 1
    assert (await row_of(db, acme, run.id)).attempt == 1


async def test_without_a_warrant_nothing_is_claimed(db: Database, acme: Company, work: Work) -> None:
    runtime = await new_runtime(db, acme)
    _, run = await queued(db, work, acme)
    assert (await claim(db, runtime, run.id)).state is ClaimState.STALE
    assert len(await audited(db, acme, "run.claim_refused")) == 1


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("update warrants set claim_before = clock_timestamp() - interval '1 second'", "claim_before"),
        ("update warrants set claims = jsonb_set(claims, '{max_seconds}', '999999')", "claims"),
        ("update warrants set revoked_at = clock_timestamp()", "none"),
        ("update work_items set spec = jsonb_set(spec, '{image}', '\"evil\"')", "image"),
        ("update work_items set spec_digest = repeat('0', 64)", "spec_digest"),
        ("update runs set attempt = 5", "attempt"),
        ("update reservations set phase = 'released'", "reservation"),
        ("update warrants set token = token || 'x'", "signature"),
        ("update work_items set cancel_requested_at = clock_timestamp()", "cancel"),
    ],
)
async def test_an_altered_or_stale_warrant_claims_nothing(
    db: Database, database: TestDatabase, acme: Company, work: Work, statement: str, code: str
) -> None:
    runtime = await new_runtime(db, acme)
    item, run = await queued(db, work, acme)
    await mint(db, acme, item.id)
    tamper(database, statement)
    assert (await claim(db, runtime, run.id)).state is ClaimState.STALE
    assert (await row_of(db, acme, run.id)).status == "queued"
    assert (await audited(db, acme, "run.claim_refused"))[0]["code"] == code


async def test_a_foreign_key_or_runtime_claims_nothing(
    db: Database, database: TestDatabase, acme: Company, globex: Company, work: Work
) -> None:
    own, foreign = await new_runtime(db, acme), await new_runtime(db, globex)
    item, run = await queued(db, work, acme)
    async with db.tenant_session(acme.id) as session:
        signer = EdDsaSigner(OKPKey.generate_key("Ed25519").as_pem(private=True).decode())
        await warrants.mint(session, control(acme.id), item.id, signer)
    refused = await claim(db, own, run.id)
    assert (refused.state, "signed" in refused.words) == (ClaimState.STALE, True)
    async with db.tenant_session(globex.id) as session:
        found = await leases.claim(session, control(globex.id), run.id, 1, foreign.runtime_id, "b", VERIFIER)
    assert found.state is ClaimState.ENDED
    async with db.tenant_session(acme.id) as session:
        found = await leases.claim(session, control(acme.id), run.id, 1, foreign.runtime_id, "b", VERIFIER)
    assert found.state is ClaimState.STALE


async def test_no_warrant_without_the_approval_of_exactly_this(
    db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    approval = await work.asked(acme, "L3")
    principal = control(acme.id)
    async with db.tenant_session(acme.id) as session:
        await money.reserve(session, principal, asked_about(approval))
    with pytest.raises(Conflict, match="approval"):
        async with db.tenant_session(acme.id) as session:
            await runs.queue_run(session, principal, asked_about(approval))
    # Even if rows said otherwise: the votes are counted again.
    tamper(database, "update approvals set status = 'approved'")
    tamper(database, "update work_items set status = 'queued'")
    tamper(
        database,
        "insert into runs (tenant_id, id, work_item_id) select tenant_id, (spec->>'run_id')::uuid, id from work_items",
    )
    with pytest.raises(WarrantRefused, match="votes"):
        await mint(db, acme, asked_about(approval))
    tamper(database, "update work_items set risk_level = 'L1'")
    with pytest.raises(WarrantRefused, match="assessment"):
        await mint(db, acme, asked_about(approval))


async def test_an_approved_item_runs_and_an_altered_one_does_not(
    db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    approval = await work.asked(acme, "L3")
    await approvals.decide(db, acme.approver, None, approval.id, verdict=Verdict.APPROVE, reason="seen")
    async with db.tenant_session(acme.id) as session:
        await money.reserve(session, control(acme.id), asked_about(approval))
        await runs.queue_run(session, control(acme.id), asked_about(approval))
    assert (await mint(db, acme, asked_about(approval))).state is MintState.MINTED
    tamper(database, "update work_items set spec = jsonb_set(spec, '{command}', '[\"evil\"]')")
    with pytest.raises(WarrantRefused, match="not the one"):
        await mint(db, acme, asked_about(approval))


async def test_a_halt_holds_back_and_voids(db: Database, acme: Company, work: Work) -> None:
    runtime = await new_runtime(db, acme)
    item, run = await queued(db, work, acme)
    await mint(db, acme, item.id)
    async with db.session_for(acme.admin) as session:
        await halt.set_halt(session, acme.admin, scope=halt.HaltScope.TENANT, mode=halt.HaltMode.HOLD)
    assert (await claim(db, runtime, run.id)).state is ClaimState.STALE
    assert (await mint(db, acme, item.id)).state is MintState.HALTED
    async with db.session_for(acme.admin) as session:
        await halt.lift(session, acme.admin, scope=halt.HaltScope.TENANT)
    assert (await claim(db, runtime, run.id)).state is ClaimState.STALE
    assert (await mint(db, acme, item.id)).state is MintState.MINTED
    assert (await claim(db, runtime, run.id)).state is ClaimState.CLAIMED


async def test_leases_are_renewed_for_who_holds_them(
    db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    runtime, other = await new_runtime(db, acme), await new_runtime(db, acme, "other")
    _, ref = await claimed(db, work, acme, runtime)
    _, late = await claimed(db, work, acme, runtime)
    outlive_lease(database, late.run_id, 1)
    older = RunRef(run_id=ref.run_id, attempt=7)
    before = (await row_of(db, acme, ref.run_id)).lease_until
    async with db.tenant_session(acme.id) as session:
        renewed = await leases.renew(
            session,
            [
                (ref, runtime.runtime_id),
                (ref, other.runtime_id),
                (older, runtime.runtime_id),
                (late, runtime.runtime_id),
                (RunRef(run_id=new_id(), attempt=1), runtime.runtime_id),
            ],
        )
    assert renewed == {ref}
    after = (await row_of(db, acme, ref.run_id)).lease_until
    assert before is not None
    assert after is not None
    assert after > before


async def lose(db: Database, company: Company, ref: RunRef) -> LostState:
    async with db.tenant_session(company.id) as session:
        return await leases.end_lost(session, control(company.id), ref.run_id, ref.attempt)


async def test_a_lost_run_of_a_restartable_assistant_is_had_again(
    db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    runtime = await new_runtime(db, acme)
    item, ref = await claimed(db, work, acme, runtime)
    assert await lose(db, acme, ref) is LostState.ALIVE
    outlive_lease(database, ref.run_id, 20)
    assert await lose(db, acme, ref) is LostState.ALIVE
    outlive_lease(database, ref.run_id)
    assert await lose(db, acme, ref) is LostState.REQUEUED
    assert await lose(db, acme, ref) is LostState.REQUEUED
    minted = await mint(db, acme, item.id)
    assert minted.attempt == 2
    assert (await claim(db, runtime, ref.run_id, 1)).state is ClaimState.STALE
    assert (await claim(db, runtime, ref.run_id, 2)).state is ClaimState.CLAIMED
    assert await lose(db, acme, ref) is LostState.ALIVE


@pytest.mark.parametrize("how", ["not restartable", "cancelled"])
async def test_a_lost_run_ends_where_it_may_not_be_had_again(
    db: Database, database: TestDatabase, acme: Company, work: Work, how: str
) -> None:
    runtime = await new_runtime(db, acme)
    item, ref = await claimed(db, work, acme, runtime)
    if how == "cancelled":
        async with db.session_for(acme.requester) as session:
            await work_items.request_cancel(session, acme.requester, item.id, "no")
    else:
        tamper(database, "update assistants set restartable = false")
    outlive_lease(database, ref.run_id)
    assert await lose(db, acme, ref) is LostState.ENDED
    outcome = (await row_of(db, acme, ref.run_id)).outcome
    assert outcome == ("cancelled" if how == "cancelled" else "runtime_gone")


async def test_a_full_new_window_sends_the_item_back_for_money(
    db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    item, _ = await queued(db, work, acme)
    tamper(database, "update budgets set limit_nano = 0")
    tamper(
        database, "insert into budget_windows select tenant_id, id, '2020-01-01' from budgets where window_kind = 'day'"
    )
    tamper(
        database,
        "update budget_windows set reserved_nano = %s where window_key = '2020-01-01'",
        item.worst_case_nano,
    )
    tamper(
        database,
        "update reservation_lines l set window_key = '2020-01-01' from budgets b"
        " where b.id = l.budget_id and b.window_kind = 'day'",
    )
    assert (await mint(db, acme, item.id)).state is MintState.BUDGET
    assert (await item_of(db, acme, item.id)).status == "awaiting_budget"
