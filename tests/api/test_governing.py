"""Assistants, policies, budgets, halts, audit, runtimes, people: over HTTP, thinly."""

from __future__ import annotations

import json
from typing import Any

from models.rules.policy import default_text
from models.services.audit_trail import verify_lines
from tests.api.conftest import Client, RowCounts
from tests.fixtures.companies import Company
from tests.fixtures.work import Work


async def test_an_assistant_made_read_and_changed(api: Client, acme: Company) -> None:
    new = {"slug": "writer", "name": "Writer", "image": "example/writer", "command": ["run"], "tools": ["files.read"]}
    answer = await api.post("/v1/assistants", acme.owner, new)
    made = answer.ok(201)
    assert (made["version"], made["owner_id"], made["enabled"]) == (1, str(acme.owner.id), True)
    (await api.post("/v1/assistants", acme.owner, new)).problem(409)
    (await api.post("/v1/assistants", acme.requester, new)).problem(403)
    (await api.post("/v1/assistants", acme.owner, {**new, "slug": "Bad Slug"})).problem(422)
    (await api.post("/v1/assistants", acme.owner, {**new, "slug": "b", "env": {"AWGP_X": "1"}})).problem(422)
    (await api.post("/v1/assistants", acme.owner, {**new, "slug": "b", "limits": {"wall_seconds": 0}})).problem(422)
    assert (await api.get("/v1/assistants/writer", acme.requester)).ok() == made
    path = answer.headers["Location"]
    change = {"version": 1, "name": "Better writer", "image": "example/writer:2"}
    changed = (await api.call("PUT", path, acme.owner, json=change)).ok()
    assert (changed["version"], changed["name"], changed["command"]) == (2, "Better writer", None)
    assert (await api.call("PUT", path, acme.owner, json=change)).problem(409)["current"] == 2
    assert (await api.get(path, acme.requester)).ok() == changed
    slugs = [one["slug"] for one in (await api.get("/v1/assistants", acme.requester)).ok()["items"]]
    assert slugs == ["writer", "reconciler"]


async def test_a_policy_checked_written_and_read(api: Client, acme: Company, row_counts: RowCounts) -> None:
    source = default_text()
    (await api.get("/v1/me", acme.admin)).ok()
    before = row_counts()
    assert (await api.post("/v1/policies/validate", acme.admin, {"source": source})).ok()["policy"]
    problem = (await api.post("/v1/policies/validate", acme.admin, {"source": "policy: 7\n"})).problem(422)
    assert {"where", "line", "what"} <= problem["errors"][0].keys()
    (await api.post("/v1/policies", acme.admin, {"source": "a: ["})).problem(422)
    assert row_counts() == before
    changed = source + "\n# a remark\n"
    (await api.post("/v1/policies", acme.admin, {"source": changed, "base_version": 7})).problem(409)
    written = (await api.post("/v1/policies", acme.admin, {"source": changed, "base_version": 1})).ok(201)
    assert written["version"] == 2
    assert (await api.get("/v1/policies/current", acme.requester)).ok() == written
    assert (await api.get("/v1/policies/1", acme.requester)).ok()["source"] == source
    (await api.get("/v1/policies/3", acme.requester)).problem(404)
    versions = [one["version"] for one in (await api.get("/v1/policies", acme.requester)).ok()["items"]]
    assert versions == [2, 1]


async def test_a_budget_set_and_read(api: Client, acme: Company, holding: Company) -> None:
    body = {"scope": "tenant", "window": "day", "limit": "12.345 USD"}
    made = (await api.call("PUT", "/v1/budgets", acme.admin, json=body)).ok()
    assert (made["limit"], made["limit_nano"], made["left_nano"]) == ("12.345 USD", 12_345_000_000, 12_345_000_000)
    (await api.call("PUT", "/v1/budgets", acme.requester, json=body)).problem(403)
    (await api.call("PUT", "/v1/budgets", acme.admin, json={**body, "limit": "-1 USD"})).problem(422)
    (await api.call("PUT", "/v1/budgets", acme.admin, json={**body, "limit": 5})).problem(422)
    everything = {"scope": "everything", "window": "month", "limit": "5 USD"}
    (await api.call("PUT", "/v1/budgets", acme.admin, json=everything)).problem(403)
    (await api.call("PUT", "/v1/budgets", holding.admin, json=everything)).ok()
    found = (await api.get("/v1/budgets", acme.requester)).ok()["items"]
    assert {(one["scope"], one["window"]) for one in found} >= {("tenant", "day"), ("everything", "month")}


async def test_halted_listed_and_lifted(api: Client, acme: Company, globex: Company, holding: Company) -> None:
    (await api.post("/v1/halts", acme.admin, {"scope": "everything"})).problem(403)
    (await api.post("/v1/halts", acme.requester, {"scope": "tenant"})).problem(403)
    state = (await api.post("/v1/halts", acme.admin, {"scope": "tenant", "reason": "odd payments"})).ok()
    assert (state["active"], state["mode"], state["epoch"]) == (True, "kill", 1)
    assert (await api.get("/v1/halts?active=true", acme.requester)).ok()["items"][0]["reason"] == "odd payments"
    assert (await api.get("/v1/halts", globex.requester)).ok()["items"] == []
    assert not (await api.post("/v1/halts/lift", acme.admin, {"scope": "tenant"})).ok()["active"]
    (await api.post("/v1/halts/lift", acme.admin, {"scope": "tenant"})).problem(409)
    of_acme = {"scope": "tenant", "tenant_id": str(acme.id), "mode": "hold"}
    (await api.post("/v1/halts", holding.admin, of_acme)).ok()
    (await api.post("/v1/halts/lift", acme.admin, {"scope": "tenant"})).problem(403)


async def test_the_trail_listed_verified_and_exported(api: Client, acme: Company, work: Work) -> None:
    approval = await work.asked(acme)
    await api.post(f"/v1/approvals/{approval.id}/decision", acme.requester, {"verdict": "approve"})
    (await api.get("/v1/audit/verify", acme.requester)).problem(403)
    report = (await api.get("/v1/audit/verify", acme.auditor)).ok()
    assert report["whole"]
    page = (await api.get("/v1/audit?limit=3", acme.auditor)).ok()
    assert [event["seq"] for event in page["items"]] == [report["head_seq"] - back for back in range(3)]
    rest = (await api.get(f"/v1/audit?limit=200&cursor={page['next_cursor']}", acme.auditor)).ok()
    assert len(page["items"]) + len(rest["items"]) == report["events"]
    only = (await api.get("/v1/audit?kind=approval.", acme.auditor)).ok()["items"]
    assert {event["kind"].split(".")[0] for event in only} == {"approval"}
    lines = (await api.get("/v1/audit/export", acme.auditor)).ok().decode().splitlines()
    assert len(lines) == report["events"]
    assert verify_lines(lines) is None
    forged = json.loads(lines[2]) | {"summary": "nothing happened"}
    assert verify_lines([*lines[:2], json.dumps(forged), *lines[3:]]) == 3


async def test_people_and_companies(api: Client, acme: Company) -> None:
    users = (await api.get("/v1/users", acme.auditor)).ok()["items"]
    assert {user["username"] for user in users} == {f"acme-{name}" for name in acme.people}
    one: dict[str, Any] = (await api.get(f"/v1/users/{acme.approver.id}", acme.auditor)).ok()
    assert one["roles"] == ["approver"]
    assert [tenant["slug"] for tenant in (await api.get("/v1/tenants", acme.requester)).ok()["items"]] == ["acme"]
    assert (await api.get(f"/v1/tenants/{acme.id}", acme.requester)).ok()["name"] == "Acme GmbH"


async def test_leave_to_enrol_a_runtime(api: Client, acme: Company) -> None:
    (await api.post("/v1/runtimes/enrolment-tokens", acme.requester, None)).problem(403)
    made = (await api.call("POST", "/v1/runtimes/enrolment-tokens", acme.admin)).ok(201)
    assert len(made["token"]) > 20
    assert (await api.get("/v1/runtimes", acme.auditor)).ok()["items"] == []
