"""Agents at the door: what a run's warrant and an assistant's key open, and what they do not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import text

from api import access
from models.domain.action import AgentCaller
from models.services import lifecycle, questions, runs, work_items
from models.storage.db import Database
from models.tables.work import WorkItemRow
from sandbox.link.messages import KillReason
from tests.api.conftest import Answer, Client, RowCounts
from tests.fixtures.agents import ask, request, running, set_policy
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.runs import SIGNER, audited, item_of, outlive_lease, tamper
from tests.fixtures.work import Work, control

L1 = {
    "kind": "read", "target": "a page", "data_class": "internal", "reversibility": "reversible",
    "external_effect": "none",
}  # fmt: skip
L3 = {**L1, "kind": "prepare_payment", "target": "account 42", "parameters": {"sum": "12.00"}, "reason": "due"}


@dataclass
class Inside:
    """A run's agent, and how it calls."""

    api: Client
    item: WorkItemRow
    caller: AgentCaller
    token: str

    async def call(self, method: str, path: str, body: Any = None, key: str = "", **more: Any) -> Answer:
        headers = {**more.pop("headers", {}), **({"Idempotency-Key": key} if key else {})}
        sent = more if body is None else {**more, "json": body}
        return await self.api.call(method, f"/v1/agent{path}", self.token, headers=headers, **sent)


async def token_of(db: Database, caller: AgentCaller) -> str:
    async with db.tenant_session(caller.tenant_id) as session:
        found = await (await session.connection()).execute(
            text("select token from warrants where id = :id"), {"id": caller.warrant_id}
        )
        return found.scalar_one()


async def inside(api: Client, db: Database, work: Work, company: Company, name: str = "host") -> Inside:
    item, caller = await running(db, work, company, name)
    return Inside(api, item, caller, await token_of(db, caller))


@pytest.fixture
async def mine(api: Client, db: Database, work: Work, acme: Company) -> Inside:
    return await inside(api, db, work, acme)


async def the_question(api: Client, acme: Company) -> dict[str, Any]:
    """The one approval that waits, once it does."""
    for _ in range(200):
        if waiting := (await api.get("/v1/approvals", acme.approver)).ok()["items"]:
            return waiting[0]
        await asyncio.sleep(0.05)
    raise AssertionError("nobody was asked")


async def approve(api: Client, acme: Company, answer: dict[str, Any], **more: Any) -> Answer:
    body = {"verdict": "approve", "reason": "seen", **more}
    return await api.post(f"/v1/approvals/{answer['approval_id']}/decision", acme.approver, body)


NOBODYS = "00000000-0000-7000-8000-000000000000"
AGENT_ROUTES = [
    (method, path.format(action_id=NOBODYS, question_id=NOBODYS))
    for (method, path), rule in access.TABLE.items()
    if rule is access.Open.AGENT
]


# --- A run ------------------------------------------------------------------------------------------------------------


async def test_low_risk_is_answered_at_once(mine: Inside) -> None:
    answer = (await mine.call("POST", "/actions", L1, "k")).ok()
    assert (answer["status"], answer["level"], answer["settled"]) == ("permitted", "L1", True)
    assert (await mine.call("GET", f"/actions/{answer['id']}")).ok() == answer
    assert [one["id"] for one in (await mine.call("GET", "/actions")).ok()["items"]] == [answer["id"]]


async def test_the_answer_is_held_back_until_somebody_decides(mine: Inside, acme: Company, db: Database) -> None:
    asking = asyncio.create_task(mine.call("POST", "/actions", L3, "pay"))
    shown = await the_question(mine.api, acme)
    assert not asking.done()
    assert (shown["subject"], shown["actions"][0]["why"]) == ("action", "due")
    assert (await item_of(db, acme, mine.item.id)).status == "awaiting_action"
    (await approve(mine.api, acme, {"approval_id": shown["id"]}, digest=shown["subject_digest"])).ok()
    answer = (await asking).ok()
    assert (answer["status"], answer["approval_id"]) == ("permitted", shown["id"])
    assert (await item_of(db, acme, mine.item.id)).status == "running"


async def test_async_is_told_to_come_again_and_a_poll_waits(mine: Inside, acme: Company) -> None:
    answer = await mine.call("POST", "/actions", {**L3, "mode": "async"}, "pay")
    pending = answer.ok(202)
    assert (answer.headers["Retry-After"], pending["status"]) == ("1", "pending")
    assert pending["wait_url"] == f"/actions/{pending['id']}?wait=25"
    assert (await mine.call("GET", f"/actions/{pending['id']}?wait=0")).ok(202)["status"] == "pending"
    waiting = asyncio.create_task(mine.call("GET", f"/actions/{pending['id']}?wait=60"))
    await asyncio.sleep(0.1)
    body = {"verdict": "reject", "reason": "too much"}
    (await mine.api.post(f"/v1/approvals/{pending['approval_id']}/decision", acme.approver, body)).ok()
    denied = (await waiting).ok()
    assert (denied["status"], denied["reason"]) == ("denied", "too much")


async def test_a_poll_whose_agent_has_gone_ends(mine: Inside) -> None:
    pending = (await mine.call("POST", "/actions", {**L3, "mode": "async"}, "pay")).ok(202)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await mine.call("GET", f"/actions/{pending['id']}?wait=60")
    # The API's own end would wait for a handler that listens on: the fixture ends within its second.


async def test_edits_come_back_to_the_agent(mine: Inside, acme: Company) -> None:
    pending = (await mine.call("POST", "/actions", {**L3, "mode": "async"}, "pay")).ok(202)
    (await approve(mine.api, acme, pending, edits={"parameters": {"sum": "10.00"}})).ok()
    answer = (await mine.call("GET", f"/actions/{pending['id']}?wait=5")).ok()
    assert (answer["status"], answer["parameters"]) == ("edited", {"sum": "10.00"})


async def test_the_key_may_stand_in_header_or_body_and_once(mine: Inside) -> None:
    first = (await mine.call("POST", "/actions", {**L1, "idempotency_key": "k"})).ok()
    assert (await mine.call("POST", "/actions", L1, "k")).ok()["id"] == first["id"]
    assert (await mine.call("POST", "/actions", {**L1, "idempotency_key": "k"}, "k")).ok()["id"] == first["id"]
    (await mine.call("POST", "/actions", {**L1, "idempotency_key": "other"}, "k")).problem(400)
    (await mine.call("POST", "/actions", L1)).problem(400)
    (await mine.call("POST", "/actions", {**L1, "target": "another"}, "k")).problem(422)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no kind": ({k: v for k, v in L1.items() if k != "kind"}, "body.kind"),
    "kind with spaces": ({**L1, "kind": "do it"}, "body.kind"),
    "empty target": ({**L1, "target": " "}, "body.target"),
    "unknown field": ({**L1, "level": "L0"}, "body.level"),
    "unknown mode": ({**L1, "mode": "now"}, "body.mode"),
    "amount as a float": ({**L1, "amount": 1.5}, "body.amount"),
    "huge number": ({**L1, "parameters": {"n": 2**60}}, "parameters"),
    "deep parameters": ({**L1, "parameters": {"a": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}}, "parameters"),
    "parameters too large": ({**L1, "parameters": {"a": "x" * 70_000}}, "parameters"),
    "unknown connector": ({**L1, "effect": {"connector": "x", "path": "/"}}, "effect.connector"),
    "staged nothing": ({**L1, "mode": "staged"}, "mode"),
}


async def test_bad_input_is_told_what_and_where_and_writes_nothing(mine: Inside, row_counts: RowCounts) -> None:
    before = row_counts()
    for name, (body, where) in BAD.items():
        problem = (await mine.call("POST", "/actions", body, "k")).problem(422)
        assert problem["errors"][0]["where"] == where, (name, problem)
    for bad in ({"words": ""}, {"words": "x", "percent": 101}, {}):
        (await mine.call("POST", "/progress", bad)).problem(422)
    for wait in ("-1", "61", "nan", "inf", "x"):
        (await mine.call("GET", f"/actions/{mine.item.id}?wait={wait}")).problem(422)
    assert row_counts() == before


# --- Whose ------------------------------------------------------------------------------------------------------------


async def test_another_runs_things_are_not_there(
    mine: Inside, api: Client, db: Database, work: Work, acme: Company, globex: Company
) -> None:
    theirs = await inside(api, db, work, acme, "second")
    foreign = await inside(api, db, work, globex, "third")
    action = (await mine.call("POST", "/actions", L1, "k")).ok()
    question = (await mine.call("POST", "/questions", {"words": "Which?"}, "q")).ok()
    for other in (theirs, foreign):
        (await other.call("GET", f"/actions/{action['id']}")).problem(404)
        (await other.call("GET", f"/questions/{question['id']}")).problem(404)
        assert (await other.call("GET", "/actions")).ok()["items"] == []
        (await other.call("GET", "/state")).problem(404)
    key = (await api.post(f"/v1/assistants/{acme.assistant_id}/keys", acme.owner, {})).ok(201)["key"]
    (await api.get(f"/v1/actions/{action['id']}", key)).problem(404)


async def test_another_attempts_warrant_is_refused_and_audited_once(
    mine: Inside, acme: Company, db: Database, database: TestDatabase
) -> None:
    (await mine.call("GET", "/context", headers={"X-Awgp-Run-Attempt": "2"})).problem(403)
    (await mine.call("GET", "/context", headers={"X-Awgp-Run-Attempt": "1"})).ok()
    tamper(database, "update runs set attempt = 2")
    fresh = Inside(mine.api, mine.item, mine.caller, mine.token)
    for _ in range(3):
        # The copy of the row may be some seconds old; what writes looks at the row itself.
        assert (await fresh.call("POST", "/actions", L1, "k")).problem(403)["code"] == "attempt"
    assert [event["code"] for event in await audited(db, acme, "agent.refused")] == ["attempt"]


async def test_a_run_that_is_over_opens_nothing(
    api: Client, db: Database, database: TestDatabase, work: Work, acme: Company
) -> None:
    for number, code in enumerate(("cancelled", "ended", "lease")):
        agent = await inside(api, db, work, acme, f"host {number}")
        assert agent.caller.run_id is not None
        if code == "cancelled":
            async with db.session_for(acme.requester) as session:
                await work_items.request_cancel(session, acme.requester, agent.item.id)
        elif code == "ended":
            tamper(database, "update runs set status = 'ended' where id = %s", agent.caller.run_id)
        else:
            outlive_lease(database, agent.caller.run_id)
        assert (await agent.call("GET", "/context")).problem(403)["code"] == code


async def test_what_is_killed_meanwhile_asks_nothing(mine: Inside, db: Database, acme: Company) -> None:
    (await mine.call("GET", "/context")).ok()
    async with db.tenant_session(acme.id) as session:
        await runs.request_kill(session, control(acme.id), mine.item.id, KillReason.HALTED)
    assert (await mine.call("POST", "/actions", L1, "k")).problem(403)["code"] == "ending"


async def test_forged_and_foreign_credentials_open_nothing(
    mine: Inside, api: Client, db: Database, acme: Company
) -> None:
    effect = SIGNER.sign({"iss": "awgp", "aud": "effect", "jti": str(mine.item.id)})
    person = api.issuer.token(acme.admin)
    head, _, rest = mine.token.partition(".")
    for token in (person, effect, f"{head}.{rest[:-4]}AAAA", "awgp_ak_" + "x" * 43, "awgp_ak_", "x"):
        for method, path in AGENT_ROUTES:
            answer = await api.call(method, path, token)
            answer.problem(401)
    for method, path in AGENT_ROUTES:
        (await api.call(method, path)).problem(401)
    # And the other way round: a warrant and a key are no person's token.
    (await api.get("/v1/me", mine.token)).problem(401)
    (await api.get(f"/v1/work-items/{mine.item.id}", mine.token)).problem(401)


# --- Beside asking ----------------------------------------------------------------------------------------------------


async def test_progress_stands_in_the_timeline(mine: Inside, db: Database, acme: Company) -> None:
    (await mine.call("POST", "/progress", {"words": "half of it", "percent": 50})).ok(204)
    async with db.tenant_session(acme.id) as session:
        connection = await session.connection()
        statement = text("select data from item_events where kind = 'progress'")
        (data,) = (await connection.execute(statement)).scalars()
    assert (data["words"], data["percent"]) == ("half of it", 50)


async def test_an_agent_does_not_make_the_timeline_endless(mine: Inside, database: TestDatabase) -> None:
    tamper(database, "update item_event_heads set seq = 19999 where work_item_id = %s", mine.item.id)
    (await mine.call("POST", "/progress", {"words": "the last"})).ok(204)
    assert "20000 events" in (await mine.call("POST", "/progress", {"words": "too many"})).problem(409)["detail"]


async def test_state_is_kept_for_the_next_attempt(mine: Inside, database: TestDatabase) -> None:
    (await mine.call("GET", "/state")).problem(404)
    for content in (b"", b"\x00\xffnot text", b"x" * 1_048_576):
        saved = (await mine.call("PUT", "/state", data=content)).ok()
        assert saved["size"] == len(content)
        assert (await mine.call("GET", "/state")).ok() == content
    (await mine.call("PUT", "/state", data=b"x" * 1_048_577)).problem(413)
    assert (await mine.call("GET", "/context")).ok()["has_state"] is True
    tamper(database, "update run_states set saves = 256")
    (await mine.call("PUT", "/state", data=b"once more")).problem(409)
    tamper(database, "update run_states set saves = 1")
    tamper(database, "update run_states set attempt = 2")
    assert (await mine.call("PUT", "/state", data=b"old")).problem(403)["code"] == "attempt"


async def test_the_context_says_what_is_left(mine: Inside, database: TestDatabase, acme: Company) -> None:
    set_policy(database, acme, most_per_item=5)
    (await mine.call("POST", "/actions", L1, "k")).ok()
    found = (await mine.call("GET", "/context")).ok()
    assert (found["title"], found["requester"], found["attempt"]) == (mine.item.title, "Requester of acme", 1)
    assert (found["actions_left"], found["models_left"], found["continuation"]) == (4, None, None)


async def test_a_question_goes_to_the_requester_and_its_answer_back(
    mine: Inside, acme: Company, globex: Company, db: Database
) -> None:
    body = {"words": "Which account?", "options": ["42", "43"]}
    asked = (await mine.call("POST", "/questions", body, "q")).ok()
    assert (await mine.call("POST", "/questions", body, "q")).ok() == asked
    (await mine.call("POST", "/questions", {"words": "Other?"}, "q")).problem(422)
    waiting = asyncio.create_task(mine.call("GET", f"/questions/{asked['id']}?wait=60"))
    path = f"/v1/work-items/{mine.item.id}/questions"
    answers = f"{path}/{asked['id']}/answer"
    assert (await mine.api.get(path, acme.auditor)).ok()["items"] == [asked]
    (await mine.api.post(answers, acme.requester, {"answer": "44"})).problem(422)
    stranger = mine.api.issuer.token(acme.second, realm_access={"roles": ["requester"]})
    (await mine.api.post(answers, stranger, {"answer": "42"})).problem(403)
    (await mine.api.post(answers, globex.requester, {"answer": "42"})).problem(404)
    (await mine.api.post(answers, acme.requester, {"answer": "42"})).ok()
    (await mine.api.post(answers, acme.owner, {"answer": "43"})).problem(409)
    found = (await waiting).ok()
    assert (found["answer"], found["answered_by"]) == ("42", "Requester of acme")
    assert [len(await audited(db, acme, f"question.{kind}")) for kind in ("asked", "answered")] == [1, 1]


async def test_questions_have_an_end(mine: Inside, database: TestDatabase, acme: Company, db: Database) -> None:
    set_policy(database, acme, most_per_item=2)
    found = [(await mine.call("POST", "/questions", {"words": f"{n}?"}, f"q{n}")).status for n in range(3)]
    assert found == [200, 200, 409]
    (first, _) = (await mine.api.get(f"/v1/work-items/{mine.item.id}/questions", acme.requester)).ok()["items"]
    tamper(database, "update runs set status = 'ended', outcome = 'cancelled'")
    async with db.tenant_session(acme.id) as session:
        await lifecycle.close(session, control(acme.id), mine.item.id, lifecycle.WorkItemStatus.CANCELLED, "x")
    path = f"/v1/work-items/{mine.item.id}/questions/{first['id']}/answer"
    (await mine.api.post(path, acme.requester, {"answer": "late"})).problem(409)
    assert questions.NewQuestion(words="x").options == ()


# --- Elsewhere --------------------------------------------------------------------------------------------------------


async def test_an_agent_elsewhere_asks_with_its_assistants_key(
    api: Client, acme: Company, globex: Company, db: Database
) -> None:
    made = (await api.post(f"/v1/assistants/{acme.assistant_id}/keys", acme.owner, {})).ok(201)
    key = made["key"]
    assert key.startswith(made["prefix"])
    assert "key" not in (await api.get(f"/v1/assistants/{acme.assistant_id}/keys", acme.admin)).ok()["items"][0]
    headers = {"Idempotency-Key": "k"}
    asked = (await api.post("/v1/actions", key, {**L3, "mode": "async"}, headers=headers)).ok(202)
    assert asked["wait_url"] == f"/v1/actions/{asked['id']}?wait=25"
    (shown,) = (await api.get("/v1/approvals", acme.approver)).ok()["items"]
    assert (shown["id"], shown["work_item_id"], shown["requester"]) == (asked["approval_id"], None, "Owner of acme")
    (await approve(api, acme, asked)).ok()
    assert (await api.get(f"/v1/actions/{asked['id']}?wait=5", key)).ok()["status"] == "permitted"
    (found,) = (await api.get("/v1/actions", acme.auditor)).ok()["items"]
    assert (found["id"], found["work_item_id"], found["why"]) == (asked["id"], None, "due")
    (await api.get(f"/v1/actions/{asked['id']}/details", acme.auditor)).ok()
    # What a run alone has.
    for method, path, body in (
        ("GET", "/context", None), ("GET", "/state", None), ("POST", "/progress", {"words": "x"}),
        ("POST", "/questions", {"words": "x", "idempotency_key": "q"}),
    ):  # fmt: skip
        answer = await api.call(method, f"/v1/agent{path}", key, **({} if body is None else {"json": body}))
        assert answer.problem(403)["code"] == "no_run", path
    (await api.get("/v1/agent/actions", key)).problem(404)
    other = (await api.post(f"/v1/assistants/{globex.assistant_id}/keys", globex.owner, {})).ok(201)["key"]
    (await api.get(f"/v1/actions/{asked['id']}", other)).problem(404)


async def test_a_key_ends(api: Client, acme: Company, database: TestDatabase, db: Database) -> None:
    path = f"/v1/assistants/{acme.assistant_id}/keys"
    made = [(await api.post(path, acme.owner, {"expires_in_days": days})).ok(201) for days in (None, 1)]
    unknown = f"/v1/actions/{NOBODYS}"
    for one in made:
        (await api.get(unknown, one["key"])).problem(404)
    revoked = (await api.call("DELETE", f"{path}/{made[0]['id']}", acme.owner)).ok()
    assert revoked["revoked_at"]
    assert (await api.call("DELETE", f"{path}/{made[0]['id']}", acme.owner)).ok() == revoked
    tamper(database, "update assistant_keys set expires_at = now() where expires_at is not null")
    for one in made:
        (await api.get(unknown, one["key"])).problem(401)
    (await api.post(path, api.issuer.token(acme.second, realm_access={"roles": ["assistant_owner"]}), {})).problem(403)
    (await api.post(path, acme.owner, {"expires_in_days": 0})).problem(422)
    assert len(await audited(db, acme, "assistant_key.created")) == 2
    assert len(await audited(db, acme, "assistant_key.revoked")) == 1


async def test_without_postgres_an_agent_is_told_to_come_again(api_without_postgres: Client, mine: Inside) -> None:
    answer = await api_without_postgres.call("GET", "/v1/agent/context", mine.token)
    answer.problem(503)
    assert answer.headers["Retry-After"]
    (await api_without_postgres.get("/v1/actions/" + str(mine.item.id), "awgp_ak_" + "x" * 43)).problem(503)


async def test_a_denial_and_a_cap_are_answers_and_no_errors(
    mine: Inside, acme: Company, database: TestDatabase, db: Database
) -> None:
    set_policy(database, acme, most_per_item=1)
    assert (await ask(db, mine.caller, request("L1"))).status == "permitted"
    denied = (await mine.call("POST", "/actions", L1, "one more")).ok()
    assert (denied["status"], denied["id"], denied["wait_url"]) == ("denied", None, None)
