"""Actions asked for in mid-run: on real PostgreSQL, also many at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from models.domain.approval import Verdict
from models.domain.errors import Forbidden, IdempotencyMismatch, InvalidInput, NotFound
from models.services import actions, approvals, halt, work_items
from models.services.action_digests import digest_of
from models.services.ids import new_id
from models.storage.db import Database
from tests.fixtures.agents import (
    EFFECT,
    action_of,
    add_connector,
    ask,
    code_of,
    decide,
    elsewhere,
    end_run,
    outbox,
    request,
    running,
    set_policy,
    status,
)
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.runs import audited, item_of, tamper
from tests.fixtures.work import Work

# --- Answered at once ------------------------------------------------------------------------------------------------


async def test_low_risk_is_permitted_at_once_and_the_item_runs_on(db: Database, acme: Company, work: Work) -> None:
    item, caller = await running(db, work, acme)
    answer = await ask(db, caller, request("L1"))
    assert (answer.status, answer.level, answer.approval_id, answer.settled) == ("permitted", "L1", None, True)
    assert (await item_of(db, acme, item.id)).status == "running"
    assert await outbox(db, acme, "start_approval") == []
    assert [len(await audited(db, acme, f"action.{kind}")) for kind in ("requested", "permitted")] == [1, 1]


async def test_high_risk_asks_people_and_the_item_waits(db: Database, acme: Company, work: Work) -> None:
    item, caller = await running(db, work, acme)
    answer = await ask(db, caller)
    assert (answer.status, answer.level, answer.settled) == ("pending", "L3", False)
    assert (await item_of(db, acme, item.id)).status == "awaiting_action"
    expected = {"approval_id": str(answer.approval_id), "work_item_id": str(item.id)}
    assert await outbox(db, acme, "start_approval") == [expected]
    async with db.session_for(acme.approver) as session:
        (shown,), _ = await approvals.list_mine(session, acme.approver)
        view = await work_items.view(session, item.id)
    assert (shown.subject, shown.action_id, shown.may_decide, shown.may_edit) == ("action", answer.id, True, True)
    (action,) = shown.actions
    assert (action.kind, action.target, action.parameters) == ("prepare_payment", "account 42", {"sum": "12.00"})
    assert (action.why, shown.subject_digest) == ("it is due", action.digest)
    assert (view.level, view.needs_approval) == ("L1", False), "the item's own level is not that of its actions"


async def test_a_yes_lets_it_go_on(db: Database, acme: Company, work: Work) -> None:
    item, caller = await running(db, work, acme)
    answer = await ask(db, caller)
    row = await action_of(db, acme, answer.id)
    assert await decide(db, acme.approver, answer.approval_id, digest=row.digest) == "approved"
    assert await status(db, acme, answer.id) == "permitted"
    assert (await item_of(db, acme, item.id)).status == "running"
    (event,) = await audited(db, acme, "action.permitted")
    assert event["approval_id"] == str(answer.approval_id)


async def test_a_no_is_told_with_its_reason(db: Database, acme: Company, work: Work) -> None:
    item, caller = await running(db, work, acme)
    answer = await ask(db, caller)
    assert await decide(db, acme.approver, answer.approval_id, Verdict.REJECT, reason="not this one") == "rejected"
    row = await action_of(db, acme, answer.id)
    assert (row.status, row.words, row.ended_at is not None) == ("denied", "not this one", True)
    assert (await item_of(db, acme, item.id)).status == "running"


async def test_the_item_waits_until_all_are_answered(db: Database, acme: Company, work: Work) -> None:
    item, caller = await running(db, work, acme)
    first, second = await ask(db, caller), await ask(db, caller, request("L2"))
    await decide(db, acme.approver, first.approval_id)
    assert (await item_of(db, acme, item.id)).status == "awaiting_action"
    await decide(db, acme.approver, second.approval_id, Verdict.REJECT)
    assert (await item_of(db, acme, item.id)).status == "running"


async def test_an_effect_is_performed_only_once_it_is_allowed(
    db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    await add_connector(db, database, acme)
    _, caller = await running(db, work, acme)
    answer = await ask(db, caller, request(effect=EFFECT))
    assert answer.effect == {
        **EFFECT, "query": {}, "headers": {}, "connector_kind": "http", "connector_version": 1,
    }  # fmt: skip
    assert (answer.status, await outbox(db, acme, "perform_effect")) == ("pending", [])
    await decide(db, acme.approver, answer.approval_id)
    assert await outbox(db, acme, "perform_effect") == [{"action_id": str(answer.id)}]
    row = await action_of(db, acme, answer.id)
    assert (row.status, row.ended_at, row.digest) == ("permitted", None, digest_of(row))


async def test_another_version_of_the_connector_is_another_digest(
    db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    await add_connector(db, database, acme)
    _, caller = await running(db, work, acme)
    first = await action_of(db, acme, (await ask(db, caller, request(effect=EFFECT))).id)
    tamper(database, "update connectors set version = 2")
    second = await action_of(db, acme, (await ask(db, caller, request(effect=EFFECT))).id)
    assert first.digest != second.digest
    assert first.class_digest == second.class_digest


@pytest.mark.parametrize(
    ("effect", "where"),
    [
        ({"connector": "nobody", "path": "/"}, "effect.connector"),
        ({"path": "/"}, "effect.connector"),
        ({"connector": 5, "path": "/"}, "effect.connector"),
        ({"connector": "hooks"}, "effect"),
        ({"connector": "hooks", "path": "/", "url": "https://x.example.com/"}, "effect"),
        ({"connector": "hooks", "path": "/", "json": 1, "body_b64": "AA=="}, "effect"),
        ({"connector": "hooks", "path": "/", "method": "TRACE"}, "effect.method"),
        ({"connector": "hooks", "path": "/\r\nHost: x"}, "effect.path"),
        ({"connector": "hooks", "path": "/", "headers": {"X": "a\r\nB: c"}}, "effect.headers.X"),
        ({"connector": "hooks", "path": "/", "connector_version": 7}, "effect.connector_version"),
        ({"connector": "hooks", "path": "/", "json": {"a": 2**60}}, "effect"),
    ],
)
async def test_an_effect_that_no_connector_performs(
    db: Database, database: TestDatabase, acme: Company, work: Work, effect: dict[str, Any], where: str
) -> None:
    await add_connector(db, database, acme)
    _, caller = await running(db, work, acme)
    with pytest.raises(InvalidInput) as refused:
        await ask(db, caller, request(effect=effect))
    assert refused.value.extra["errors"][0]["where"] == where


async def test_what_the_agent_says_lowers_nothing_that_is_known(
    db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    await add_connector(db, database, acme)
    _, caller = await running(db, work, acme)
    meek = {"kind": "read", "data_class": "public", "reversibility": "reversible", "external_effect": "none"}
    plain = await action_of(db, acme, (await ask(db, caller, request("L1", **meek))).id)
    assert plain.facts["data_class"] == "internal", "never below the work item's"
    post = await action_of(db, acme, (await ask(db, caller, request("L1", **meek, effect=EFFECT))).id)
    assert (post.facts["external_effect"], post.facts["tools"]) == ("external", ["hooks.write"])
    assert post.status == "pending", "a request that leaves the house is seen by people, whatever it calls itself"
    silent = await action_of(
        db, acme, (await ask(db, caller, request("L1", kind="read", data_class=None, reversibility=None,
                                                 external_effect=None))).id,
    )  # fmt: skip
    assert (silent.facts["reversibility"], silent.facts["external_effect"]) == ("irreversible", "external")


# --- The same key ----------------------------------------------------------------------------------------------------


async def test_the_same_key_is_the_same_action(db: Database, acme: Company, work: Work) -> None:
    _, caller = await running(db, work, acme)
    first = await ask(db, caller, key="pay-1")
    assert (await ask(db, caller, key="pay-1")).id == first.id
    await decide(db, acme.approver, first.approval_id)
    assert (await ask(db, caller, key="pay-1")).status == "permitted"
    with pytest.raises(IdempotencyMismatch):
        await ask(db, caller, request(target="account 43"), key="pay-1")
    assert len(await audited(db, acme, "action.requested")) == 1


async def test_another_work_items_key_is_another_key(db: Database, acme: Company, work: Work) -> None:
    _, one = await running(db, work, acme)
    _, other = await running(db, work, acme, "second")
    assert (await ask(db, one, key="k")).id != (await ask(db, other, request(target="other"), key="k")).id


async def test_the_same_key_at_once_asks_once(db: Database, acme: Company, work: Work) -> None:
    _, caller = await running(db, work, acme)
    for agent in (caller, elsewhere(acme)):
        answers = await asyncio.gather(*(ask(db, agent, key="race") for _ in range(8)))
        assert len({answer.id for answer in answers}) == 1
    assert len(await audited(db, acme, "action.requested")) == 2
    assert len(await outbox(db, acme, "start_approval")) == 2


async def test_different_actions_at_once_are_all_asked(db: Database, acme: Company, work: Work) -> None:
    item, caller = await running(db, work, acme)
    answers = await asyncio.gather(*(ask(db, caller, request(target=f"account {n}")) for n in range(6)))
    assert {answer.status for answer in answers} == {"pending"}
    assert (await item_of(db, acme, item.id)).status == "awaiting_action"
    await asyncio.gather(*(decide(db, acme.approver, answer.approval_id) for answer in answers))
    assert (await item_of(db, acme, item.id)).status == "running"


# --- Who asks --------------------------------------------------------------------------------------------------------


async def test_only_the_live_attempt_under_its_own_warrant_asks(db: Database, acme: Company, work: Work) -> None:
    _, caller = await running(db, work, acme)
    _, other = await running(db, work, acme, "second")
    for change, code in (
        ({"attempt": 2}, "attempt"),
        ({"warrant_id": new_id()}, "warrant"),
        ({"run_id": other.run_id}, "run"),
        ({"run_id": new_id()}, "run"),
    ):
        assert await code_of(ask(db, caller.model_copy(update=change))) == code
    assert await audited(db, acme, "action.requested") == []


async def test_another_companys_run_is_not_even_seen(db: Database, acme: Company, globex: Company, work: Work) -> None:
    _, caller = await running(db, work, acme)
    stranger = caller.model_copy(update={"tenant_id": globex.id})
    assert await code_of(ask(db, stranger)) == "run"
    answer = await ask(db, caller)
    for thief in (elsewhere(globex), elsewhere(acme), stranger):
        assert answer.id is not None
        async with db.tenant_session(thief.tenant_id) as session:
            with pytest.raises(NotFound):
                await actions.read_own(session, thief, answer.id)


async def test_a_run_that_is_over_or_is_to_end_asks_nothing(db: Database, acme: Company, work: Work) -> None:
    item, caller = await running(db, work, acme)
    async with db.session_for(acme.requester) as session:
        await work_items.request_cancel(session, acme.requester, item.id)
    assert await code_of(ask(db, caller)) == "ending"
    await end_run(db, acme, caller)
    assert await code_of(ask(db, caller)) == "run_ended"


async def test_a_halt_stops_what_is_asked(db: Database, acme: Company, work: Work) -> None:
    async with db.session_for(acme.admin) as session:
        await halt.set_halt(session, acme.admin, scope=halt.HaltScope.TENANT, mode=halt.HaltMode.HOLD)
    assert await code_of(ask(db, elsewhere(acme))) == "halted"


async def test_a_switched_off_assistant_asks_nothing_from_elsewhere(
    db: Database, database: TestDatabase, acme: Company
) -> None:
    tamper(database, "update assistants set enabled = false")
    with pytest.raises(Forbidden):
        await ask(db, elsewhere(acme))


# --- Caps and standing denials ---------------------------------------------------------------------------------------


async def test_a_denial_stands_for_its_class(db: Database, acme: Company, work: Work) -> None:
    _, caller = await running(db, work, acme)
    first = await ask(db, caller)
    await decide(db, acme.approver, first.approval_id, Verdict.REJECT, reason="never")
    for number in range(3):
        again = await ask(db, caller, request(parameters={"sum": str(number)}))
        assert (again.id, again.status, again.reason, again.effect_result) == (first.id, "denied", "never", None)
    assert len(await outbox(db, acme, "start_approval")) == 1
    assert len(await audited(db, acme, "action.asked_again")) == 1, "said once, and counted"
    assert (await action_of(db, acme, first.id)).result == {"asked_again": 3}
    assert (await ask(db, caller, request(target="another"))).status == "pending"
    _, other = await running(db, work, acme, "second")
    assert (await ask(db, other)).status == "pending", "within the work item alone"


@pytest.mark.parametrize(
    "target", ["ada@EXAMPLE.com", "ada@example.com\u200b", "ａda@example.com", "\u00a0ada@example.com"]
)
async def test_a_target_that_reads_the_same_is_the_same(db: Database, acme: Company, work: Work, target: str) -> None:
    _, caller = await running(db, work, acme)
    first = await ask(db, caller, request(target="ada@example.com"))
    await decide(db, acme.approver, first.approval_id, Verdict.REJECT, reason="never")
    assert (await ask(db, caller, request(target=target))).id == first.id


async def test_elsewhere_a_denial_stands_for_a_time(db: Database, database: TestDatabase, acme: Company) -> None:
    agent = elsewhere(acme)
    first = await ask(db, agent)
    await decide(db, acme.approver, first.approval_id, Verdict.REJECT, reason="no")
    assert (await ask(db, agent)).id == first.id
    tamper(database, "update actions set decided_at = now() - interval '25 hours'")
    assert (await ask(db, agent)).status == "pending"


async def test_caps_deny_without_a_question(db: Database, database: TestDatabase, acme: Company, work: Work) -> None:
    set_policy(database, acme, most_per_item=3, most_per_minute=100)
    _, caller = await running(db, work, acme)
    answers = await asyncio.gather(*(ask(db, caller, request("L1", target=f"t{n}")) for n in range(9)))
    assert Counter(answer.status for answer in answers) == {"permitted": 3, "denied": 6}
    capped = next(answer for answer in answers if answer.status == "denied")
    assert (capped.id, "allows 3" in capped.reason) == (None, True)
    assert len(await audited(db, acme, "action.capped")) == 1


async def test_the_minutes_cap_counts_a_minute(db: Database, database: TestDatabase, acme: Company, work: Work) -> None:
    set_policy(database, acme, most_per_minute=2)
    for agent in ((await running(db, work, acme))[1], elsewhere(acme)):
        found = [(await ask(db, agent, request("L1", target=f"t{n}"))).status for n in range(3)]
        assert found == ["permitted", "permitted", "denied"]
    tamper(database, "update actions set created_at = created_at - interval '61 seconds'")
    assert (await ask(db, elsewhere(acme), request("L1", target="later"))).status == "permitted"


# --- Staged ----------------------------------------------------------------------------------------------------------


async def test_staged_effects_are_collected_in_order(
    db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    await add_connector(db, database, acme)
    item, caller = await running(db, work, acme)
    found = [
        await action_of(db, acme, (await ask(db, caller, request(level, effect=EFFECT, mode="staged"))).id)
        for level in ("L1", "L3")
    ]
    assert [(row.status, row.position) for row in found] == [("staged", 1), ("staged", 2)]
    assert (await item_of(db, acme, item.id)).status == "running"
    assert await outbox(db, acme, "start_approval") == []
    with pytest.raises(InvalidInput):
        await ask(db, caller, request(mode="staged"))
    with pytest.raises(InvalidInput):
        await ask(db, elsewhere(acme), request(mode="staged", effect=EFFECT))


async def test_the_policy_may_demand_staging(db: Database, database: TestDatabase, acme: Company, work: Work) -> None:
    await add_connector(db, database, acme)
    set_policy(database, acme, staged_from="L3")
    _, caller = await running(db, work, acme)
    assert (await ask(db, caller, request(effect=EFFECT))).status == "staged"
    assert (await ask(db, caller, request())).status == "pending", "no effect: nothing to collect"
    assert (await ask(db, elsewhere(acme), request(effect=EFFECT))).status == "pending", "no run, so no end of one"
