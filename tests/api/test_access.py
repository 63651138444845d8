"""One table says who may call what; nothing is served beside it."""

from __future__ import annotations

from uuid import UUID

import pytest
from fastapi.routing import APIRoute

from api import access
from api.app import routes
from api.openapi import TARGET, text
from models.domain.principal import Principal, PrincipalKind, Role
from tests.api.conftest import Client
from tests.fixtures.companies import Company
from tests.fixtures.work import Work


def test_routes_and_table_are_the_same() -> None:
    access.check(routes(), routes(), routes())


def test_a_route_that_is_not_in_the_table_fails_the_start() -> None:
    extra = APIRoute("/v1/extra", lambda: None, methods=["GET"])
    with pytest.raises(access.AccessTableError, match="GET /v1/extra is not in the table"):
        access.check([*routes(), extra], [*routes(), extra], routes())


def test_a_row_without_a_route_fails_the_start() -> None:
    with pytest.raises(access.AccessTableError, match="is in the table, but no route"):
        access.check(routes()[1:], routes(), routes())


def test_a_route_that_asks_nobody_fails_the_start() -> None:
    with pytest.raises(access.AccessTableError, match="/v1/me does not ask who calls"):
        access.check(routes(), [route for route in routes() if route.path != "/v1/me"], routes())


def test_a_route_for_agents_that_asks_people_fails_the_start() -> None:
    with pytest.raises(access.AccessTableError, match="/v1/agent/context does not ask who calls"):
        access.check(routes(), routes(), [route for route in routes() if route.path != "/v1/agent/context"])


def test_health_alone_is_public() -> None:
    public = {path for (_, path), rule in access.TABLE.items() if rule is access.Open.PUBLIC}
    assert public == {"/healthz", "/readyz"}


def _somebody(*roles: Role) -> Principal:
    return Principal(tenant_id=_NIL, id=_NIL, kind=PrincipalKind.USER, roles=frozenset(roles))


_NIL = UUID(int=0)


@pytest.mark.parametrize(("method", "path"), list(access.TABLE))
def test_each_route_refuses_who_has_no_role_for_it(method: str, path: str) -> None:
    rule = access.TABLE[method, path]
    if rule is access.Open.AGENT:
        with pytest.raises(access.Forbidden):
            access.require(_somebody(*Role), method, path)
        return
    if isinstance(rule, access.Open):
        access.require(_somebody(), method, path)
        return
    with pytest.raises(access.Forbidden):
        access.require(_somebody(), method, path)
    for role in Role:
        if role in rule:
            access.require(_somebody(role), method, path)
        else:
            with pytest.raises(access.Forbidden):
                access.require(_somebody(role), method, path)


def test_a_runtime_may_call_nothing_here() -> None:
    assert not [row for row, rule in access.TABLE.items() if not isinstance(rule, access.Open) and Role.RUNTIME in rule]


def test_break_glass_opens_nothing_while_no_service_knows_it() -> None:
    assert not [row for row, rule in access.TABLE.items() if isinstance(rule, frozenset) and Role.BREAK_GLASS in rule]


async def test_every_route_asks_for_a_token(api: Client) -> None:
    for (method, path), rule in access.TABLE.items():
        answer = await api.call(
            method, path, headers={"Content-Type": "application/json"}, data=b"{}" if method != "GET" else None
        )
        if rule is access.Open.PUBLIC:
            answer.ok()
        else:
            assert answer.status in {401, 422}, (method, path, answer.body)
            assert answer.headers["Content-Type"] == "application/problem+json"


async def test_a_role_too_few_is_said(api: Client, acme: Company) -> None:
    problem = (await api.post("/v1/policies", acme.requester, {"source": "x"})).problem(403)
    assert problem["roles_needed"] == ["holding_admin", "tenant_admin"]
    (event,) = (await api.get("/v1/audit?kind=access.refused", acme.auditor)).ok()["items"]
    assert (event["subject"], event["actor_id"]) == ("route/POST /v1/policies", acme.requester.subject)


async def test_what_a_service_refuses_is_audited_once_and_in_the_items_timeline(
    api: Client, acme: Company, globex: Company, holding: Company, work: Work
) -> None:
    item = await work.assessed(acme, "L3")
    anybody = api.issuer.token(acme.second, realm_access={"roles": ["requester"]})
    path = f"/v1/work-items/{item.id}/cancel"
    (await api.post(path, anybody, {})).problem(403)
    (await api.post(path, globex.requester, {})).problem(404)
    (await api.post("/v1/halts", acme.admin, {"scope": "everything"})).problem(403)
    await api.post("/v1/halts", holding.admin, {"scope": "tenant", "tenant_id": str(acme.id)})
    (await api.post("/v1/halts/lift", acme.admin, {"scope": "tenant"})).problem(403)
    everything = {"scope": "everything", "window": "month", "limit": "5 USD"}
    (await api.call("PUT", "/v1/budgets", acme.admin, json=everything)).problem(403)
    events = (await api.get("/v1/audit?kind=access.refused", acme.auditor)).ok()["items"]
    assert [(event["subject"], event["work_item_id"]) for event in reversed(events)] == [
        ("route/POST /v1/work-items/{work_item_id}/cancel", str(item.id)),
        ("route/POST /v1/halts", None),
        ("route/POST /v1/halts/lift", None),
        ("route/PUT /v1/budgets", None),
    ]
    assert (await api.get("/v1/audit?kind=access.refused", globex.auditor)).ok()["items"] == []


async def test_an_item_that_the_caller_does_not_see_is_not_named(api: Client, acme: Company) -> None:
    """The path is the caller's word: no foreign or invented id gets into the trail's column."""
    made_up = "01890000-0000-7000-8000-000000000000"
    (await api.post(f"/v1/work-items/{made_up}/cancel", acme.approver, {})).problem(403)
    (event,) = (await api.get("/v1/audit?kind=access.refused", acme.auditor)).ok()["items"]
    assert event["work_item_id"] is None


async def test_a_refused_decision_is_audited_by_the_decision_alone(api: Client, acme: Company, work: Work) -> None:
    approval = await work.asked(acme, "L4")
    path = f"/v1/approvals/{approval.id}/decision"
    (await api.post(path, acme.approver, {"verdict": "approve", "reason": "fine"})).problem(403)
    assert (await api.get("/v1/audit?kind=access.refused", acme.auditor)).ok()["items"] == []
    assert len((await api.get("/v1/audit?kind=approval.refused", acme.auditor)).ok()["items"]) == 1


def test_the_kept_description_is_current() -> None:
    assert TARGET.read_text(encoding="utf-8") == text(), "run: python -m api.openapi"
