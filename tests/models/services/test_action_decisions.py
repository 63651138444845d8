"""Deciding on actions: who may, edits, races, and what the end of the item makes of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from models.domain.action import ActionEdits
from models.domain.approval import Verdict
from models.domain.errors import Conflict, InvalidInput, NotFound
from models.domain.principal import Role
from models.services import approvals, settlement
from models.services.action_digests import digest_of
from models.services.ids import new_id
from models.storage.db import Database
from tests.fixtures.agents import (
    EFFECT,
    action_of,
    add_connector,
    ask,
    caller_of,
    code_of,
    decide,
    elsewhere,
    end_run,
    outbox,
    request,
    running,
    status,
)
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.runs import audited, item_of, tamper
from tests.fixtures.work import Work, control

# --- Deciding --------------------------------------------------------------------------------------------------------


async def test_who_asked_and_who_owns_the_assistant_do_not_decide(db: Database, acme: Company, work: Work) -> None:
    _, caller = await running(db, work, acme)
    inside, outside = await ask(db, caller), await ask(db, elsewhere(acme))
    as_approver = {"roles": frozenset({Role.APPROVER})}
    requester, owner = (person.model_copy(update=as_approver) for person in (acme.requester, acme.owner))
    assert await code_of(decide(db, requester, inside.approval_id)) == "own_request"
    for answer in (inside, outside):
        assert await code_of(decide(db, owner, answer.approval_id)) == "own_request"
    assert await decide(db, acme.approver, outside.approval_id) == "approved"


@pytest.mark.parametrize("level", ["L4", "L5"])
async def test_the_highest_levels_are_the_holdings_alone(
    db: Database, holding: Company, acme: Company, work: Work, level: str
) -> None:
    _, caller = await running(db, work, acme)
    for agent in (caller, elsewhere(acme)):
        answer = await ask(db, agent, request(level))
        mighty = acme.approver.model_copy(update={"roles": frozenset(Role)})
        assert await code_of(decide(db, mighty, answer.approval_id)) == "holding_only"
        assert await code_of(decide(db, mighty, answer.approval_id, edits=ActionEdits(parameters={}))) == "holding_only"
        await decide(db, holding.approver, answer.approval_id)
        if level == "L5":
            assert await status(db, acme, answer.id) == "pending"
            await decide(db, holding.second, answer.approval_id)
        assert await status(db, acme, answer.id) == "permitted"


async def test_another_companys_approver_does_not_see_it(
    db: Database, acme: Company, globex: Company, holding: Company
) -> None:
    answer = await ask(db, elsewhere(acme))
    with pytest.raises(NotFound):
        await decide(db, globex.approver, answer.approval_id)
    async with db.session_for(holding.approver) as session:
        shown, _ = await approvals.list_mine(session, holding.approver)
    assert [one.id for one in shown] == [answer.approval_id]
    assert (shown[0].work_item_id, shown[0].requester) == (None, "Owner of acme")


async def test_expiry_and_decision_have_one_winner(
    db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    item, caller = await running(db, work, acme)

    async def expire(approval_id: Any) -> None:
        async with db.tenant_session(acme.id) as session:
            await approvals.expire(session, control(acme.id), approval_id)

    for ahead in (-1, 1, 5, 20):
        answer = await ask(db, caller, request(target=f"in {ahead}"))
        tamper(
            database,
            "update approvals set expires_at = clock_timestamp() + %s * interval '1 ms' where id = %s",
            ahead,
            answer.approval_id,
        )
        code, _ = await asyncio.gather(
            code_of(decide(db, acme.approver, answer.approval_id)), expire(answer.approval_id)
        )
        tamper(database, "update approvals set expires_at = now() - interval '1 s' where status = 'pending'")
        await expire(answer.approval_id)
        assert await status(db, acme, answer.id) == ("permitted" if code == "allowed" else "expired")
        assert (await item_of(db, acme, item.id)).status == "running"


# --- Edited ----------------------------------------------------------------------------------------------------------


async def test_edits_are_assessed_anew_and_voted_on(
    db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    await add_connector(db, database, acme)
    item, caller = await running(db, work, acme)
    answer = await ask(db, caller, request(effect=EFFECT))
    less = ActionEdits(parameters={"sum": "10.00"}, effect={**EFFECT, "json": {"sum": 10}})
    assert await decide(db, acme.approver, answer.approval_id, edits=less) == "approved"
    row = await action_of(db, acme, answer.id)
    assert (row.status, row.parameters, row.effect and row.effect["json"]) == ("edited", {"sum": "10.00"}, {"sum": 10})
    assert row.digest == digest_of(row) != row.asked_digest
    async with db.session_for(acme.auditor) as session:
        shown = await approvals.read(session, acme.auditor, answer.approval_id or new_id())
    assert shown.subject_digest == row.digest
    assert await outbox(db, acme, "perform_effect") == [{"action_id": str(answer.id)}]
    with database.admin() as admin:
        assert admin.execute("select subject_digest, edits from decisions").fetchone() == (
            row.digest,
            less.model_dump(mode="json"),
        )
    assert (await item_of(db, acme, item.id)).status == "running"
    again = await ask(db, caller, request(effect=EFFECT, target="x"))
    assert again.status == "pending"


async def test_edits_never_make_it_graver(db: Database, database: TestDatabase, acme: Company, work: Work) -> None:
    await add_connector(db, database, acme)
    await add_connector(db, database, acme, "other")
    _, caller = await running(db, work, acme)
    read = {"connector": "hooks", "method": "GET", "path": "/"}
    answer = await ask(db, caller, request("L1", effect=read, reversibility="reversible"))
    assert (answer.status, answer.level) == ("pending", "L2")
    before = await action_of(db, acme, answer.id)
    delete = {**read, "method": "DELETE"}
    for edits, code in (
        (ActionEdits(effect=delete), "level_rises"),
        (ActionEdits(effect={**read, "connector": "other"}), "other_connector"),
        (ActionEdits(effect={"connector": "hooks"}), "invalid-input"),
        (ActionEdits(parameters={"a": 2**60}), "invalid-input"),
    ):
        assert await code_of(decide(db, acme.approver, answer.approval_id, edits=edits)) == code
    after = await action_of(db, acme, answer.id)
    assert (after.status, after.digest, after.effect) == ("pending", before.digest, before.effect)
    assert [event["code"] for event in await audited(db, acme, "approval.refused")] == [
        "level_rises", "other_connector", "invalid-input", "invalid-input",
    ]  # fmt: skip


async def test_edits_go_with_one_yes_to_one_action(db: Database, holding: Company, acme: Company, work: Work) -> None:
    item = await work.asked(acme, "L3")
    edits = ActionEdits(parameters={})
    assert await code_of(decide(db, acme.approver, item.id, edits=edits)) == "not_editable"
    answer = await ask(db, elsewhere(acme), request("L5"))
    assert await code_of(decide(db, holding.approver, answer.approval_id, edits=edits)) == "quorum"
    plain = await ask(db, elsewhere(acme), request("L3"))
    with pytest.raises(InvalidInput):
        await decide(db, acme.approver, plain.approval_id, Verdict.REJECT, edits=edits)
    with pytest.raises(Conflict, match="no effect"):
        await decide(db, acme.approver, plain.approval_id, edits=ActionEdits(effect=EFFECT))


# --- The end of the item ---------------------------------------------------------------------------------------------


async def test_an_agent_that_ends_without_waiting_closes_its_questions(
    db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    await add_connector(db, database, acme)
    item, caller = await running(db, work, acme)
    asked = await ask(db, caller, request(mode="async"))
    allowed = await ask(db, caller, request(effect=EFFECT, target="b"))
    await decide(db, acme.approver, allowed.approval_id)
    await end_run(db, acme, caller)
    assert (await item_of(db, acme, item.id)).status == "succeeded"
    assert [await status(db, acme, one.id) for one in (asked, allowed)] == ["cancelled", "permitted"]
    assert await code_of(decide(db, acme.approver, asked.approval_id)) == "already_closed"
    kinds = [await outbox(db, acme, "signal_approval")]
    assert {"approval_id": str(asked.approval_id)} in kinds[0]


async def test_what_is_stopped_performs_nothing_more(
    db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    await add_connector(db, database, acme)
    item, caller = await running(db, work, acme)
    asked = await ask(db, caller)
    allowed = await ask(db, caller, request(effect=EFFECT, target="b"))
    await decide(db, acme.approver, allowed.approval_id)
    staged = await ask(db, caller, request(effect=EFFECT, mode="staged", target="c"))
    tamper(database, "update runs set status = 'ended', outcome = 'cancelled'")
    async with db.tenant_session(acme.id) as session:
        await settlement.finish(session, control(acme.id), item.id)
    assert (await item_of(db, acme, item.id)).status == "cancelled"
    found = [await status(db, acme, one.id) for one in (asked, allowed, staged)]
    assert found == ["cancelled", "cancelled", "discarded"]


async def test_a_new_attempt_finds_what_was_decided(
    db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    """The runtime is lost while people are asked: the next attempt asks under the same key and has the answer."""
    from models.services import leases
    from tests.fixtures.runs import claim, mint, new_runtime, outlive_lease

    item, caller = await running(db, work, acme)
    answer = await ask(db, caller, key="pay")
    assert caller.run_id is not None
    outlive_lease(database, caller.run_id)
    async with db.tenant_session(acme.id) as session:
        assert await leases.end_lost(session, control(acme.id), caller.run_id, 1) is leases.LostState.REQUEUED
    assert (await item_of(db, acme, item.id)).status == "queued"
    await decide(db, acme.approver, answer.approval_id)
    assert (await item_of(db, acme, item.id)).status == "queued"
    runtime = await new_runtime(db, acme, "another")
    minted = await mint(db, acme, item.id)
    assert (await claim(db, runtime, caller.run_id, minted.attempt)).state is leases.ClaimState.CLAIMED
    fresh = await caller_of(db, acme, item, caller.run_id)
    assert await code_of(ask(db, caller, key="new")) == "attempt"
    assert (await ask(db, fresh, key="pay")).status == "permitted"
