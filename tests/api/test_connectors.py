"""Secrets and connectors through the API: written by admins, shown by name only."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.conftest import Client
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase

VALUE = "sk-live-0123456789abcdef"
HOOKS: dict[str, Any] = {
    "name": "payments",
    "kind": "http",
    "config": {
        "base_url": "https://api.example.com/v1",
        "methods": ["POST"],
        "credential": {"secret": "payments-key", "as": "bearer"},
        "idempotency_header": "Idempotency-Key",
    },
}


async def put(api: Client, company: Company, name: str = "payments-key", value: str = VALUE) -> Any:
    return (await api.call("PUT", f"/v1/secrets/{name}", company.admin, json={"value": value})).ok()


async def test_a_secret_is_never_shown_again(api: Client, acme: Company, database: TestDatabase) -> None:
    kept = await put(api, acme)
    assert kept["name"] == "payments-key"
    listed = (await api.get("/v1/secrets", acme.admin)).ok()
    trail = (await api.get("/v1/audit", acme.admin)).ok()
    with database.admin() as admin:
        stored = admin.execute("select ciphertext from secrets").fetchall()
    for text in (json.dumps(kept), json.dumps(listed), json.dumps(trail), str(stored)):
        assert VALUE not in text
        assert "0123456789" not in text
    assert any(
        event["kind"] == "secret.created" and event["data"] == {"name": "payments-key"} for event in trail["items"]
    )


async def test_a_secret_is_replaced_kept_while_used_and_forgotten(api: Client, acme: Company) -> None:
    await put(api, acme)
    await put(api, acme, value="another value")
    (await api.post("/v1/connectors", acme.admin, HOOKS)).ok(201)
    assert (await api.get("/v1/secrets", acme.admin)).ok()["items"][0]["used_by"] == ["payments"]
    assert (await api.call("DELETE", "/v1/secrets/payments-key", acme.admin)).problem(409)["used_by"] == ["payments"]
    change = {"version": 1, "config": {"base_url": "https://api.example.com"}}
    assert (await api.call("PUT", "/v1/connectors/payments", acme.admin, json=change)).ok()["version"] == 2
    (await api.call("PUT", "/v1/connectors/payments", acme.admin, json=change)).problem(409)
    assert (await api.call("DELETE", "/v1/secrets/payments-key", acme.admin)).status == 204
    (await api.call("DELETE", "/v1/secrets/payments-key", acme.admin)).problem(404)


@pytest.mark.parametrize("value", ["short", "x" * 9000, "with\nanother line", "snowman \u2603 in it"])
async def test_a_value_that_is_no_header_is_refused(api: Client, acme: Company, value: str) -> None:
    answer = await api.call("PUT", "/v1/secrets/a", acme.admin, json={"value": value})
    assert answer.problem(422)["errors"][0]["where"] == "body.value"
    assert value not in json.dumps(answer.body)


async def test_secrets_are_a_companys_own(api: Client, acme: Company, globex: Company, holding: Company) -> None:
    await put(api, acme)
    for company in (globex, holding):
        assert (await api.get("/v1/secrets", company.admin)).ok()["items"] == []
        answer = await api.post("/v1/connectors", company.admin, HOOKS)
        assert answer.problem(422)["errors"][0]["where"] == "config.credential.secret"
    (await api.get("/v1/secrets", acme.requester)).problem(403)


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({}, "config"),
        ({"base_url": "http://api.example.com"}, "config"),
        ({"base_url": "ftp://api.example.com"}, "config.base_url"),
        ({"base_url": "https://user:password@api.example.com"}, "config.base_url"),
        ({"base_url": "https://api.example.com", "timeout_seconds": 61}, "config.timeout_seconds"),
        ({"base_url": "https://api.example.com", "methods": ["CONNECT"]}, "config.methods.0"),
        ({"base_url": "https://api.example.com", "idempotency_header": "Authorization"}, "config"),
        ({"base_url": "https://api.example.com", "surprise": 1}, "config.surprise"),
        ({"hosts": ["*"]}, "config.hosts.0"),
        ({"hosts": ["a b"]}, "config.hosts.0"),
        ({"hosts": ["api.example.com"], "credential": {"secret": "k", "as": "header"}}, "config.credential"),
        ({"hosts": ["api.example.com"], "credential": {"secret": "unknown"}}, "config.credential.secret"),
    ],
)
async def test_a_configuration_is_checked(api: Client, acme: Company, config: dict[str, Any], where: str) -> None:
    answer = await api.post("/v1/connectors", acme.admin, {"name": "x", "kind": "http", "config": config})
    assert answer.problem(422)["errors"][0]["where"] == where


async def test_a_connector_is_read_and_listed(api: Client, acme: Company, globex: Company) -> None:
    await put(api, acme)
    made = (await api.post("/v1/connectors", acme.admin, HOOKS)).ok(201)
    (await api.post("/v1/connectors", acme.admin, HOOKS)).problem(409)
    assert (await api.get("/v1/connectors/payments", acme.auditor)).ok() == made
    assert (await api.get("/v1/connectors", acme.admin)).ok()["items"] == [made]
    assert VALUE not in json.dumps(made)
    (await api.get("/v1/connectors/payments", globex.admin)).problem(404)
    (await api.post("/v1/connectors", acme.requester, HOOKS)).problem(403)
