"""The other tenant's token on every route: 404, as if it were not there; never 403, never 200."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from api import access
from models.domain.principal import Principal, Role
from models.services import questions
from models.storage.db import Database
from tests.api.conftest import Client
from tests.fixtures.agents import ask, running
from tests.fixtures.companies import Company
from tests.fixtures.work import LEVELS, Work


@dataclass
class Theirs:
    """Things of acme's, one of every kind that has an id."""

    item: str
    approval: str
    assistant: str
    tenant: str
    user: str
    file: str
    running: str
    action: str
    question: str
    key: str


@pytest.fixture
async def theirs(api: Client, db: Database, acme: Company, work: Work) -> Theirs:
    approval = await work.asked(acme, "L3")
    uploaded = (await api.call("POST", "/v1/files", acme.requester, data=b"secret")).ok(201)
    body = {"assistant": "reconciler", "title": "Theirs", **LEVELS["L1"], "inputs": [{"path": "a.txt", **uploaded}]}
    item = (await api.post("/v1/work-items", acme.requester, body, headers={"Idempotency-Key": "x"})).ok(201)
    (await api.call("PUT", "/v1/secrets/their-key", acme.admin, json={"value": "a long secret"})).ok()
    hooks = {"name": "theirs", "kind": "http", "config": {"hosts": ["hooks.example.com"]}}
    (await api.post("/v1/connectors", acme.admin, hooks)).ok(201)
    running_item, agent = await running(db, work, acme)
    asked = await ask(db, agent)
    async with db.tenant_session(acme.id) as session:
        question = await questions.ask(session, agent, questions.NewQuestion(words="Which one?"), "q")
    key = (await api.post(f"/v1/assistants/{acme.assistant_id}/keys", acme.owner, {})).ok(201)
    return Theirs(
        item=item["id"],
        approval=str(approval.id),
        assistant=str(acme.assistant_id),
        tenant=str(acme.id),
        user=str(acme.requester.id),
        file="in/a.txt",
        running=str(running_item.id),
        action=str(asked.id),
        question=str(question.id),
        key=key["id"],
    )


def _all_roles(api: Client, person: Principal) -> str:
    """A token with every role there is: so that 403 could only come from the thing itself."""
    return api.issuer.token(person, realm_access={"roles": [role.value for role in Role]})


def _requests(theirs: Theirs) -> dict[tuple[str, str], tuple[str, str, Any]]:
    """For each route that names a thing: the call that reaches for acme's."""
    keys = f"/v1/assistants/{theirs.assistant}/keys"
    item, halt = f"/v1/work-items/{theirs.item}", {"scope": "tenant", "tenant_id": theirs.tenant}
    assistant_halt = {"scope": "assistant", "tenant_id": theirs.tenant, "assistant_id": theirs.assistant}
    change = {"name": "Mine", "image": "mine", "version": 1}
    budget = {"scope": "assistant", "assistant_id": theirs.assistant, "window": "day", "limit": "1 USD"}
    return {
        ("GET", "/v1/tenants/{tenant_id}"): ("GET", f"/v1/tenants/{theirs.tenant}", None),
        ("GET", "/v1/users/{user_id}"): ("GET", f"/v1/users/{theirs.user}", None),
        ("GET", "/v1/assistants/{assistant_id}"): ("GET", f"/v1/assistants/{theirs.assistant}", None),
        ("PUT", "/v1/assistants/{assistant_id}"): ("PUT", f"/v1/assistants/{theirs.assistant}", change),
        ("GET", "/v1/work-items/{work_item_id}"): ("GET", item, None),
        ("POST", "/v1/work-items/{work_item_id}/cancel"): ("POST", f"{item}/cancel", {}),
        ("GET", "/v1/work-items/{work_item_id}/timeline"): ("GET", f"{item}/timeline", None),
        ("GET", "/v1/work-items/{work_item_id}/logs"): ("GET", f"{item}/logs", None),
        ("GET", "/v1/work-items/{work_item_id}/events"): ("GET", f"{item}/events", None),
        ("GET", "/v1/work-items/{work_item_id}/costs"): ("GET", f"{item}/costs", None),
        ("GET", "/v1/work-items/{work_item_id}/files"): ("GET", f"{item}/files", None),
        ("GET", "/v1/work-items/{work_item_id}/files/{direction}/{path:path}"): ("GET", f"{item}/files/in/a.txt", None),
        ("HEAD", "/v1/work-items/{work_item_id}/files/{direction}/{path:path}"): (
            "HEAD",
            f"{item}/files/in/a.txt",
            None,
        ),
        ("GET", "/v1/approvals/{approval_id}"): ("GET", f"/v1/approvals/{theirs.approval}", None),
        ("POST", "/v1/approvals/{approval_id}/decision"): (
            "POST",
            f"/v1/approvals/{theirs.approval}/decision",
            {"verdict": "approve", "reason": "why not", "tenant_id": theirs.tenant},
        ),
        ("DELETE", "/v1/secrets/{name}"): ("DELETE", "/v1/secrets/their-key", None),
        ("GET", "/v1/connectors/{name}"): ("GET", "/v1/connectors/theirs", None),
        ("PUT", "/v1/connectors/{name}"): ("PUT", "/v1/connectors/theirs", {"version": 1, "config": {}}),
        ("GET", "/v1/actions/{action_id}/details"): ("GET", f"/v1/actions/{theirs.action}/details", None),
        ("GET", "/v1/work-items/{work_item_id}/actions"): ("GET", f"/v1/work-items/{theirs.running}/actions", None),
        ("GET", "/v1/work-items/{work_item_id}/questions"): ("GET", f"/v1/work-items/{theirs.running}/questions", None),
        ("POST", "/v1/work-items/{work_item_id}/questions/{question_id}/answer"): (
            "POST",
            f"/v1/work-items/{theirs.running}/questions/{theirs.question}/answer",
            {"answer": "that one"},
        ),
        ("POST", "/v1/assistants/{assistant_id}/keys"): ("POST", keys, {}),
        ("GET", "/v1/assistants/{assistant_id}/keys"): ("GET", keys, None),
        ("DELETE", "/v1/assistants/{assistant_id}/keys/{key_id}"): ("DELETE", f"{keys}/{theirs.key}", None),
        ("PUT", "/v1/budgets"): ("PUT", "/v1/budgets", budget),
        ("POST", "/v1/halts"): ("POST", "/v1/halts", halt),
        ("POST", "/v1/halts/lift"): ("POST", "/v1/halts/lift", assistant_halt),
        ("GET", "/v1/audit"): ("GET", f"/v1/audit?tenant_id={theirs.tenant}", None),
        ("GET", "/v1/audit/verify"): ("GET", f"/v1/audit/verify?tenant_id={theirs.tenant}", None),
        ("GET", "/v1/audit/export"): ("GET", f"/v1/audit/export?tenant_id={theirs.tenant}", None),
    }


# Routes that name no thing of anybody's: what they answer is the caller's own, which the next test looks at.
OWN = {
    ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/v1/me"), ("GET", "/v1/tenants"), ("GET", "/v1/users"),
    ("POST", "/v1/assistants"), ("GET", "/v1/assistants"), ("POST", "/v1/files"), ("POST", "/v1/work-items"),
    ("POST", "/v1/work-items/dry-run"), ("GET", "/v1/work-items"), ("GET", "/v1/approvals"),
    ("POST", "/v1/policies/validate"), ("POST", "/v1/policies"), ("GET", "/v1/policies"),
    ("GET", "/v1/policies/current"), ("GET", "/v1/policies/{version}"), ("GET", "/v1/budgets"), ("GET", "/v1/halts"),
    ("PUT", "/v1/secrets/{name}"), ("GET", "/v1/secrets"), ("POST", "/v1/connectors"), ("GET", "/v1/connectors"),
    ("GET", "/v1/runtimes"), ("POST", "/v1/runtimes/enrolment-tokens"), ("GET", "/v1/prices"),
    ("GET", "/v1/prices/{model:path}"), ("GET", "/v1/actions"),
}  # fmt: skip
# Those of agents, whom a person's token never makes anybody: tests/api/test_agents.py looks at theirs.
AGENTS = {row for row, rule in access.TABLE.items() if rule is access.Open.AGENT}


async def test_every_route_with_another_tenants_token(
    api: Client, acme: Company, globex: Company, theirs: Theirs, row_counts: Any
) -> None:
    requests = _requests(theirs)
    assert requests.keys() | OWN | AGENTS == access.TABLE.keys(), "a new route says here whose things it reaches"
    token = _all_roles(api, globex.admin)
    (await api.get("/v1/me", token)).ok()
    before = row_counts()
    for row, (method, path, body) in requests.items():
        answer = await api.call(method, path, token, **({} if body is None else {"json": body}))
        assert answer.status == 404, (row, answer.status, answer.body)
        if method == "HEAD":
            continue  # it says no more than its status
        answer.problem(404)
        assert theirs.tenant not in answer.body["detail"] or "tenant" in answer.body["detail"]
    assert row_counts() == before
    # The control: with acme's own token each of them is there.
    own = _all_roles(api, acme.admin)
    for row, (method, path, _) in requests.items():
        if method in {"GET", "HEAD"} and not path.endswith("/logs"):
            answer = await api.call(method, path, own)
            assert answer.status == 200, (row, answer.body)


async def test_lists_hold_nothing_of_another_tenants(
    api: Client, globex: Company, acme: Company, theirs: Theirs
) -> None:
    token = _all_roles(api, globex.admin)
    for path in (
        "tenants",
        "users",
        "assistants",
        "work-items",
        "approvals",
        "policies",
        "budgets",
        "halts",
        "audit",
        "runtimes",
        "actions",
    ):
        answer = await api.get(f"/v1/{path}", token)
        text = str(answer.ok())
        for theirs_id in (theirs.item, theirs.approval, theirs.assistant, theirs.tenant, theirs.user, theirs.action):
            assert theirs_id not in text, (path, theirs_id)


async def test_a_filter_names_another_tenant_in_vain(
    api: Client, globex: Company, acme: Company, theirs: Theirs
) -> None:
    found = (await api.get(f"/v1/work-items?tenant_id={acme.id}", _all_roles(api, globex.admin))).ok()
    assert found["items"] == []


async def test_the_holding_sees_its_subsidiaries_and_they_do_not_see_it(
    api: Client, holding: Company, acme: Company, theirs: Theirs
) -> None:
    assert (await api.get(f"/v1/work-items/{theirs.item}", holding.auditor)).ok()["tenant_id"] == theirs.tenant
    slugs = {tenant["slug"] for tenant in (await api.get("/v1/tenants", holding.auditor)).ok()["items"]}
    assert slugs == {"holding", "acme", "globex"}
    (await api.get(f"/v1/tenants/{holding.id}", acme.admin)).problem(404)
    (await api.get(f"/v1/users/{holding.approver.id}", acme.admin)).problem(404)
    (await api.get(f"/v1/audit/verify?tenant_id={holding.id}", acme.auditor)).problem(404)
    assert (await api.get(f"/v1/audit/verify?tenant_id={acme.id}", holding.auditor)).ok()["whole"]
