"""Effects on real PostgreSQL: allowed from the rows, burnt before sending, at most once; what nobody knows is asked."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from aiohttp import web
from joserfc.jwk import OKPKey
from sqlalchemy import text

from activities.signatures import EffectMintState, SettleState
from models.domain.action import ActionEdits
from models.domain.approval import Verdict
from models.domain.effect import Answer, Outcome
from models.domain.errors import AwgpError
from models.domain.principal import Principal
from models.rules.effect import MOST_TRIES
from models.services import approvals, connectors, effect_warrants, effects, halt, work_items
from models.services.halt import HaltMode, HaltScope
from models.services.warrant_keys import EdDsaSigner
from models.storage.db import Database
from tests.fixtures.agents import ask, elsewhere, outbox, request, running
from tests.fixtures.companies import Company
from tests.fixtures.effects import SECRET, VAULT, Outside
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.runs import SIGNER, VERIFIER, tamper
from tests.fixtures.work import control

OTHER = EdDsaSigner(OKPKey.generate_key("Ed25519").as_pem(private=True).decode())


async def fails_with(attempt: Any) -> str:
    try:
        await attempt
    except AwgpError as error:
        return str(error.extra.get("code", error.type))
    return "done"


async def never(_request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


# --- Performed -------------------------------------------------------------------------------------------------------


async def test_an_allowed_effect_is_performed_once_and_its_answer_kept(outside: Outside) -> None:
    await outside.connector()
    outside.receiver.says("/pay", 201, {"payment": "p-1"})
    action_id = await outside.permitted()
    action = await outside.through(action_id)
    assert (action.status, action.result) == (
        "performed",
        {"status": 201, "content_type": "application/json; charset=utf-8", "json": {"payment": "p-1"}},
    )
    assert action.ended_at is not None
    assert await outside.audited(action_id) == ["effect.sent", "effect.performed"]
    (made,) = await outside.tries(action_id)
    assert (made.state, made.request["method"], made.request["body"]) == ("performed", "POST", '{"sum":12}')
    # Asked again, by whomever: no leave, and nothing is sent.
    assert (await outside.mint(action_id)).state is EffectMintState.ENDED
    await outside.perform(action_id)
    assert (await outside.settle(action_id)).state is SettleState.DONE
    assert len(outside.receiver.at("/pay")) == 1


async def test_an_agent_elsewhere_has_its_effects_performed_too(outside: Outside) -> None:
    await outside.connector()
    wanted = {"connector": "hooks", "path": "/pay", "json": {}}
    asked = await ask(outside.db, elsewhere(outside.company), request(effect=wanted))
    assert asked.id is not None
    await outside.decide(asked.approval_id)
    assert (await outside.through(asked.id)).status == "performed"


async def test_n8n_is_called_at_its_webhook(outside: Outside) -> None:
    await outside.connector("flows", "n8n")
    outside.receiver.says("/webhook/invoice", 200, {"executionId": "231"})
    action_id = await outside.permitted("/webhook/invoice", connector="flows")
    action = await outside.through(action_id)
    assert action.result is not None
    assert (action.status, action.result["json"]) == ("performed", {"executionId": "231"})
    assert [one.method for one in outside.receiver.seen] == ["POST"]


async def test_a_file_is_handed_over_once_it_is_there(outside: Outside) -> None:
    await outside.connector("hand-over", "file")
    _, caller = await running(outside.db, outside.work, outside.company)
    wanted = request(effect={"connector": "hand-over", "artifact": "report.txt"}, mode="staged")
    asked = await ask(outside.db, caller, wanted)
    assert (asked.id, caller.work_item_id, caller.run_id) != (None, None, None)
    tamper(
        outside.database,
        "insert into work_item_files (tenant_id, work_item_id, direction, path, sha256, size)"
        " values (%s, %s, 'out', 'report.txt', %s, 11)",
        outside.company.id,
        caller.work_item_id,
        "ab" * 32,
    )
    await outside.end_run(caller.work_item_id, caller.run_id)  # type: ignore[arg-type]
    first = await outside.advance(caller.work_item_id)  # type: ignore[arg-type]
    if first.approval_id is not None:
        await outside.decide(first.approval_id)
    assert (await outside.commit(caller.work_item_id)).state == "done"  # type: ignore[arg-type]
    action = await outside.action(asked.id)  # type: ignore[arg-type]
    assert action.status == "performed", action.words
    assert action.result is not None
    assert action.result["url"] == f"/v1/work-items/{caller.work_item_id}/files/out/report.txt"


# --- Leave -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("update actions set parameters = '{\"sum\": \"9999.00\"}' where id = %s", "not what its digest says"),
        ("update actions set effect = jsonb_set(effect, '{path}', '\"/steal\"') where id = %s", "digest"),
        ("update actions set level = 'L0' where id = %s", "its assessment L3"),
        ("update approvals set status = 'pending', ended_at = null where action_id = %s", "its approval is pending"),
        ("update decisions set subject_digest = repeat('a', 64) where approval_id in"
         " (select id from approvals where action_id = %s)", "its votes do not approve it"),
        ("update decisions set verdict = 'reject' where approval_id in"
         " (select id from approvals where action_id = %s)", "its votes do not approve it"),
        ("update decisions set decider_email = 'requester@acme.example.com' where approval_id in"
         " (select id from approvals where action_id = %s)", "its votes do not approve it"),
        ("update approvals set subject_digest = repeat('b', 64) where action_id = %s", "there is none"),
        ("update connectors set enabled = false where tenant_id = (select tenant_id from actions where id = %s)",
         "switched off"),
        ("update connectors set version = 2 where tenant_id = (select tenant_id from actions where id = %s)",
         "was changed"),
        ("update assistants set connectors = '{}' where id = (select assistant_id from actions where id = %s)",
         "not the assistant's any more"),
        ("update assistants set enabled = false where id = (select assistant_id from actions where id = %s)",
         "the assistant is switched off"),
        ("update work_items set cancel_requested_at = now()"
         " where id = (select work_item_id from actions where id = %s)", "being cancelled"),
        ("update work_items set status = 'halted' where id = (select work_item_id from actions where id = %s)",
         "its work item is halted"),
    ],
)  # fmt: skip
async def test_what_was_not_allowed_exactly_so_is_refused(outside: Outside, change: str, why: str) -> None:
    await outside.connector()
    action_id = await outside.permitted()
    control_id = await outside.permitted("/control")
    tamper(outside.database, change, action_id)
    action = await outside.through(action_id)
    assert action.status == "failed"
    assert why in action.words
    assert outside.receiver.at("/pay") == []
    assert await outside.audited(action_id) == ["effect.refused"]
    # The control: untouched, the same is performed (where the change was to this action alone).
    if "connectors" not in change and "assistants" not in change:
        assert (await outside.through(control_id)).status == "performed"


async def test_an_action_that_people_have_not_allowed_gets_no_warrant(outside: Outside) -> None:
    await outside.connector()
    _, caller = await running(outside.db, outside.work, outside.company)
    wanted = {"connector": "hooks", "path": "/pay", "json": {}}
    pending = await ask(outside.db, caller, request(effect=wanted))
    denied = await ask(outside.db, caller, request(effect=wanted, target="b"))
    await outside.decide(denied.approval_id, Verdict.REJECT)
    for asked in (pending, denied):
        assert asked.id is not None
        assert (await outside.mint(asked.id)).state is EffectMintState.ENDED
        # A status that somebody wrote is not believed either.
        tamper(outside.database, "update actions set status = 'permitted', ended_at = null where id = %s", asked.id)
        assert (await outside.through(asked.id)).status == "failed"
    assert outside.receiver.seen == []


async def test_an_edited_action_is_performed_as_it_was_edited(outside: Outside) -> None:
    await outside.connector()
    _, caller = await running(outside.db, outside.work, outside.company)
    asked = await ask(outside.db, caller, request(effect={"connector": "hooks", "path": "/pay", "json": {"sum": 12}}))
    edits = ActionEdits(effect={"connector": "hooks", "path": "/pay", "json": {"sum": 7}})
    await outside.decide(asked.approval_id, edits=edits)
    assert asked.id is not None
    assert (await outside.through(asked.id)).status == "performed"
    assert [one.body for one in outside.receiver.at("/pay")] == [b'{"sum":7}']


# --- Warrants --------------------------------------------------------------------------------------------------------


async def live_warrant(outside: Outside, action_id: UUID) -> Any:
    with outside.database.admin() as admin:
        return admin.execute(
            "select id, token, claims from warrants where action_id = %s and claimed_at is null and revoked_at is null",
            (action_id,),
        ).fetchone()


async def test_a_warrant_is_used_once_by_one_of_many(outside: Outside) -> None:
    await outside.connector()
    action_id = await outside.permitted()
    assert (await outside.mint(action_id)).state is EffectMintState.MINTED
    await asyncio.gather(*(outside.perform(action_id) for _ in range(8)))
    assert len(outside.receiver.at("/pay")) == 1
    assert (await outside.action(action_id)).status == "performed"


async def test_a_warrant_names_all_that_it_is_for(outside: Outside) -> None:
    await outside.connector()
    action_id = await outside.permitted()
    await outside.mint(action_id)
    first = await live_warrant(outside, action_id)
    await outside.mint(action_id)
    assert (await live_warrant(outside, action_id))[0] == first[0], "still good: the same one"
    claims, action = first[2], await outside.action(action_id)
    assert VERIFIER.verify(first[1]) == claims
    expected = {"iss": "awgp", "aud": "effect", "digest": action.digest, "connector": "hooks", "try": 1}
    assert {name: claims[name] for name in expected} == expected


@pytest.mark.parametrize(
    "forge",
    ["other key", "other digest", "other action", "other tenant", "audience", "stale", "epochs", "no token", "claims"],
)
async def test_a_warrant_that_was_tampered_with_performs_nothing(outside: Outside, globex: Company, forge: str) -> None:
    await outside.connector()
    action_id, other_id = await outside.permitted(), await outside.permitted("/other")
    await outside.mint(action_id)
    await outside.mint(other_id)
    warrant_id, token, claims = await live_warrant(outside, action_id)
    change: dict[str, Any] = {
        "other digest": {"digest": "0" * 64},
        "other action": {"action": str(other_id)},
        "other tenant": {"tenant": str(globex.id)},
        "audience": {"aud": "run"},
        "epochs": {"epochs": {"everything": 0, "tenant": 7, "assistant": 0}},
    }.get(forge, {})
    claims = claims | change
    match forge:
        case "other key":
            token = OTHER.sign(claims)
        case "no token":
            token = ""
        case "stale":
            past = "clock_timestamp() - interval '1 s'"
            tamper(outside.database, f"update warrants set claim_before = {past} where id = %s", warrant_id)
        case "claims":
            token = SIGNER.sign(claims | {"digest": "0" * 64})
        case _:
            token = SIGNER.sign(claims)
    tamper(
        outside.database, "update warrants set token = %s, claims = %s where id = %s",
        token, json.dumps(claims), warrant_id,
    )  # fmt: skip
    await outside.perform(action_id)
    assert outside.receiver.at("/pay") == []
    assert await outside.audited(action_id) == ["effect.refused"]
    assert await live_warrant(outside, action_id) is None, "void"
    # The rows allow it: the next warrant is minted from them, and the other action's was never touched.
    assert (await outside.settle(action_id)).state is SettleState.AGAIN
    assert (await outside.through(action_id)).status == "performed"
    await outside.perform(other_id)
    assert (await outside.action(other_id)).status == "performed"


async def test_a_halt_holds_effects_back_and_voids_their_warrants(outside: Outside) -> None:
    await outside.connector()
    action_id = await outside.permitted()
    assert (await outside.mint(action_id)).state is EffectMintState.MINTED
    admin = outside.company.admin
    async with outside.db.session_for(admin) as session:
        await halt.set_halt(
            session, admin, scope=HaltScope.TENANT, tenant_id=outside.company.id, mode=HaltMode.HOLD, reason="wait"
        )
    await outside.perform(action_id)
    assert (await outside.mint(action_id)).state is EffectMintState.HALTED
    assert outside.receiver.seen == []
    async with outside.db.session_for(admin) as session:
        await halt.lift(session, admin, scope=HaltScope.TENANT, tenant_id=outside.company.id)
    assert (await outside.through(action_id)).status == "performed"


# --- Once ------------------------------------------------------------------------------------------------------------


async def test_without_a_key_no_answer_is_asked_of_people_and_never_sent_again(outside: Outside) -> None:
    await outside.connector(timeout_seconds=1)
    outside.receiver.answers["/pay"] = never
    action_id = await outside.permitted()
    action = await outside.through(action_id)
    assert (action.status, action.ended_at) == ("unknown", None)
    assert len(outside.receiver.at("/pay")) == 1
    for _ in range(3):
        await outside.through(action_id)
    assert len(outside.receiver.at("/pay")) == 1
    assert await outside.audited(action_id) == ["effect.sent", "effect.unknown"]
    async with outside.db.session_for(outside.company.approver) as session:
        asked = await approvals.read(session, outside.company.approver, action.approval_id)  # type: ignore[arg-type]
    assert asked.title.startswith("Nobody knows whether this was done: ")
    assert asked.may_decide
    assert not asked.may_edit


@pytest.mark.parametrize("verdict", list(Verdict))
async def test_people_say_whether_to_try_again(outside: Outside, verdict: Verdict) -> None:
    await outside.connector(timeout_seconds=1)
    outside.receiver.answers["/pay"] = never
    action_id = await outside.permitted()
    action = await outside.through(action_id)
    outside.receiver.says("/pay")
    before = len(await outbox(outside.db, outside.company, "perform_effect"))
    assert await fails_with(outside.decide(action.approval_id, who=outside.company.requester)) == "role_missing"
    await outside.decide(action.approval_id, verdict)
    again = len(await outbox(outside.db, outside.company, "perform_effect")) - before
    action = await outside.through(action_id)
    if verdict is Verdict.APPROVE:
        assert (action.status, again, len(outside.receiver.at("/pay"))) == ("performed", 1, 2)
        assert [row.state for row in await outside.tries(action_id)] == ["unknown", "performed"]
    else:
        assert (action.status, again, len(outside.receiver.at("/pay"))) == ("unknown", 0, 1)
        assert action.ended_at is not None
        assert "not tried again" in action.words


async def test_a_yes_to_one_try_is_no_yes_to_the_next(outside: Outside) -> None:
    await outside.connector(timeout_seconds=1)
    outside.receiver.answers["/pay"] = never
    action_id = await outside.permitted()
    first = (await outside.through(action_id)).approval_id
    await outside.decide(first)
    action = await outside.through(action_id)
    assert (action.status, len(outside.receiver.at("/pay"))) == ("unknown", 2)
    assert action.approval_id != first
    await outside.through(action_id)
    assert len(outside.receiver.at("/pay")) == 2


async def test_a_forged_yes_to_try_again_is_no_leave(outside: Outside) -> None:
    await outside.connector(timeout_seconds=1)
    outside.receiver.answers["/pay"] = never
    action_id = await outside.permitted()
    await outside.through(action_id)
    tamper(outside.database, "update actions set status = 'performing' where id = %s", action_id)
    tamper(outside.database, "update approvals set status = 'approved' where action_id = %s", action_id)
    assert (await outside.through(action_id)).status == "unknown"
    assert len(outside.receiver.at("/pay")) == 1


async def test_with_a_key_it_is_tried_again_under_the_same_key(outside: Outside) -> None:
    await outside.connector(timeout_seconds=1, idempotency_header="Idempotency-Key")
    count = 0

    async def third_time(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        return await never(request) if count == 1 else web.json_response({}, status=503 if count == 2 else 200)

    outside.receiver.answers["/pay"] = third_time
    action_id = await outside.permitted()
    assert (await outside.through(action_id)).status == "performed"
    assert outside.receiver.keys("/pay") == [str(action_id)] * 3
    assert [row.state for row in await outside.tries(action_id)] == ["unknown", "unknown", "performed"]


async def test_with_a_key_tries_have_an_end_and_then_people_are_asked(outside: Outside) -> None:
    await outside.connector(idempotency_header="Idempotency-Key")
    outside.receiver.says("/pay", 503)
    action_id = await outside.permitted()
    assert (await outside.through(action_id)).status == "unknown"
    assert len(outside.receiver.at("/pay")) == MOST_TRIES


async def test_what_only_reads_is_tried_again_without_a_key(outside: Outside) -> None:
    await outside.connector()
    outside.receiver.says("/pay", 503)
    action_id = await outside.permitted(method="GET", json=None)
    await outside.through(action_id, rounds=2)
    assert len(outside.receiver.at("/pay")) == 2


async def test_what_was_never_sent_is_tried_again_and_ends_as_failed(outside: Outside) -> None:
    await outside.connector(base_url="http://127.0.0.1:9")
    action_id = await outside.permitted()
    action = await outside.through(action_id)
    assert action.status == "failed"
    made = await outside.tries(action_id)
    assert [row.state for row in made] == ["failed"] * MOST_TRIES
    assert all(row.response is not None and row.response["sent"] is False for row in made)


async def test_a_refusal_is_the_end(outside: Outside) -> None:
    await outside.connector(idempotency_header="Idempotency-Key")
    outside.receiver.says("/pay", 422, {"why": "no such account"})
    action = await outside.through(await outside.permitted())
    assert action.result is not None
    assert (action.status, action.result["json"]) == ("failed", {"why": "no such account"})
    assert len(outside.receiver.at("/pay")) == 1


async def begin(outside: Outside, action_id: UUID) -> effects.Began:
    """As far as the commit before the request leaves."""
    await outside.mint(action_id)
    principal = control(outside.company.id)
    async with outside.db.session_for(principal) as session:
        return await effects.begin(session, principal, action_id, VERIFIER, VAULT)


async def test_a_worker_that_died_between_the_commit_and_the_answer(outside: Outside) -> None:
    await outside.connector()
    action_id = await outside.permitted()
    began = await begin(outside, action_id)
    assert began.job is not None
    waiting = replace(outside, grace=90)
    found = await waiting.settle(action_id)
    assert found.state is SettleState.WAIT, "its time is not over"
    assert found.until is not None
    assert found.until > datetime.now(UTC) + timedelta(seconds=60)
    assert (await outside.mint(action_id)).state is EffectMintState.UNSETTLED
    await outside.perform(action_id)
    assert outside.receiver.seen == []
    long_ago = "clock_timestamp() - interval '10 min'"
    tamper(outside.database, f"update effect_attempts set started_at = {long_ago} where action_id = %s", action_id)
    assert (await waiting.settle(action_id)).state is SettleState.DONE
    assert (await outside.action(action_id)).status == "unknown"


async def test_an_answer_that_comes_late_is_the_truth(outside: Outside) -> None:
    await outside.connector()
    action_id = await outside.permitted()
    began = await begin(outside, action_id)
    assert began.job is not None
    long_ago = "clock_timestamp() - interval '10 min'"
    tamper(outside.database, f"update effect_attempts set started_at = {long_ago} where action_id = %s", action_id)
    await outside.settle(action_id)
    asked = (await outside.action(action_id)).approval_id
    principal = control(outside.company.id)
    answer = Answer(Outcome.PERFORMED, "the other side answered 200", {"status": 200, "sent": True}, {"status": 200})
    async with outside.db.session_for(principal) as session:
        await effects.record(session, principal, action_id, began.job.attempt, answer)
    action = await outside.action(action_id)
    assert (action.status, action.result) == ("performed", {"status": 200})
    assert await fails_with(outside.decide(asked)) == "already_closed"
    assert len(await outside.tries(action_id)) == 1


async def test_the_question_outlives_the_item(outside: Outside) -> None:
    await outside.connector(timeout_seconds=1)
    outside.receiver.answers["/pay"] = never
    action_id = await outside.permitted()
    action = await outside.through(action_id)
    assert action.work_item_id is not None
    assert action.run_id is not None
    await outside.end_run(action.work_item_id, action.run_id)
    assert (await outside.finish(action.work_item_id)).status == "succeeded"
    outside.receiver.says("/pay")
    await outside.decide(action.approval_id)
    assert (await outside.through(action_id)).status == "performed"


async def test_what_is_stopped_is_not_tried_again(outside: Outside) -> None:
    await outside.connector(base_url="http://127.0.0.1:9")
    action_id = await outside.permitted()
    await outside.mint(action_id)
    await outside.perform(action_id)
    action = await outside.action(action_id)
    who: Principal = outside.company.requester
    async with outside.db.session_for(who) as session:
        await work_items.request_cancel(session, who, action.work_item_id, "stop")  # type: ignore[arg-type]
    assert (await outside.settle(action_id)).state is SettleState.DONE
    assert (await outside.action(action_id)).status == "failed"


# --- Secrets ---------------------------------------------------------------------------------------------------------


async def test_no_secret_is_kept_anywhere(outside: Outside, caplog: pytest.LogCaptureFixture) -> None:
    async def echoes(request: web.Request) -> web.StreamResponse:
        shown = request.headers["Authorization"]
        return web.json_response({"you": shown, "b64": base64.b64encode(shown.encode()).decode(), "q": quote(shown)})

    await outside.connector()
    outside.receiver.answers["/pay"] = echoes
    outside.receiver.answers["/fail"] = never
    assert (await outside.through(await outside.permitted())).status == "performed"
    assert (await outside.through(await outside.permitted("/fail"))).status == "unknown"
    assert SECRET in outside.receiver.at("/pay")[0].headers["Authorization"], "the control: it was sent"
    kept = await outside.everything_kept() + caplog.text
    assert "effect.performed" in kept
    for form in (SECRET, SECRET[:16], quote(SECRET, safe=""), base64.b64encode(SECRET.encode()).decode()[:-4]):
        assert form not in kept


async def test_a_sealed_secret_that_was_moved_performs_nothing(outside: Outside, globex: Company) -> None:
    await outside.connector()
    tamper(outside.database, "update secrets set ciphertext = %s", VAULT.seal(globex.id, "key", "another company's"))
    action = await outside.through(await outside.permitted())
    assert action.status == "failed"
    assert "does not open" in action.words
    assert outside.receiver.seen == []


async def test_an_effect_is_its_companys(outside: Outside, globex: Company, db: Database) -> None:
    await outside.connector()
    action_id = await outside.permitted()
    theirs = control(globex.id)
    for attempt in (
        lambda session: effect_warrants.mint(session, theirs, action_id, SIGNER),
        lambda session: effects.begin(session, theirs, action_id, VERIFIER, VAULT),
        lambda session: effects.settle(session, theirs, action_id, 0),
    ):
        async with db.session_for(theirs) as session:
            assert await fails_with(attempt(session)) == "not-found"


async def test_a_connector_that_was_changed_after_the_yes_is_another(outside: Outside) -> None:
    await outside.connector()
    action_id = await outside.permitted()
    admin = outside.company.admin
    async with outside.db.session_for(admin) as session:
        row = await connectors.read(session, admin, "hooks")
        await connectors.update(session, admin, "hooks", 1, {**row.config, "timeout_seconds": 3}, enabled=True)
    action = await outside.through(action_id)
    assert action.status == "failed"
    assert "was changed after this was allowed" in action.words


async def test_the_database_forgets_no_try(outside: Outside, database: TestDatabase) -> None:
    await outside.connector()
    action_id = await outside.permitted()
    await outside.through(action_id)
    async with outside.db.tenant_session(outside.company.id) as session:
        with pytest.raises(Exception, match="permission denied"):
            await (await session.connection()).execute(text("delete from effect_attempts"))
