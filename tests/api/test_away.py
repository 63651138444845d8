"""What is away is said; what breaks tells nobody how."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from api.app import create_app
from api.deps import Deps, Probe
from api.routes import health
from models.services import tenants
from tests.api.conftest import Client, RowCounts, serve
from tests.api.issuer import TestIssuer
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.work import LEVELS

GOOD: dict[str, Any] = {"assistant": "reconciler", "title": "Reconcile", **LEVELS["L1"]}


async def test_postgres_away_is_a_503_that_says_when_to_try_again(api_without_postgres: Client, acme: Company) -> None:
    for method, path, body in (
        ("GET", "/v1/me", None),
        ("GET", "/v1/work-items", None),
        ("POST", "/v1/work-items", GOOD),
    ):
        answer = await api_without_postgres.call(
            method, path, acme.requester, headers={"Idempotency-Key": "k"}, **({"json": body} if body else {})
        )
        problem = answer.problem(503)
        assert problem["dependency"] == "postgres"
        assert int(answer.headers["Retry-After"]) > 0
    answer = await api_without_postgres.get("/readyz")
    assert answer.status == 503
    assert answer.body["status"] == "away"
    assert answer.body["dependencies"][0]["state"] == "away"
    (await api_without_postgres.get("/healthz")).ok()


async def test_postgres_comes_back_and_the_same_key_goes_on(
    api: Client, acme: Company, database: TestDatabase, row_counts: RowCounts
) -> None:
    (await api.get("/v1/me", acme.requester)).ok()
    with database.server.admin() as admin:
        admin.execute(f'alter database "{database.name}" allow_connections false'.encode())
        admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (database.name,))
        headers = {"Idempotency-Key": "through-it"}
        away = await api.post("/v1/work-items", acme.requester, GOOD, headers=headers)
        assert away.problem(503)["dependency"] == "postgres"
        admin.execute(f'alter database "{database.name}" allow_connections true'.encode())
    created = (await api.post("/v1/work-items", acme.requester, GOOD, headers=headers)).ok(201)
    assert (await api.post("/v1/work-items", acme.requester, GOOD, headers=headers)).ok(200)["id"] == created["id"]
    assert row_counts()["work_items"] == 1


async def test_temporal_away_takes_the_work_all_the_same(deps: Deps, issuer: TestIssuer, acme: Company) -> None:
    class Away:
        async def start_work_item(self, tenant_id: UUID, work_item_id: UUID) -> None:
            raise ConnectionError("refused")

        async def signal_work_item(self, tenant_id: UUID, work_item_id: UUID) -> None:
            await asyncio.sleep(3600)

        async def signal_approval(self, approval_id: UUID) -> None:
            raise ConnectionError("refused")

    async with serve(create_app(replace(deps, fast_path=Away())), issuer) as api:
        item = (await api.post("/v1/work-items", acme.requester, GOOD, headers={"Idempotency-Key": "k"})).ok(201)
        async with asyncio.timeout(2):
            (await api.post(f"/v1/work-items/{item['id']}/cancel", acme.requester, {})).ok(202)


async def test_a_bug_tells_its_id_and_nothing_else(api: Client, acme: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    (await api.get("/v1/me", acme.requester)).ok()

    async def broken(*_given: Any) -> Any:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(tenants, "list_visible", broken)
    answer = await api.get("/v1/tenants", acme.requester)
    problem = answer.problem(500)
    assert "hunter2" not in str(problem)
    assert problem["request_id"] == answer.headers["X-Request-Id"]


async def test_readiness_names_each_and_how_it_is(
    deps: Deps, issuer: TestIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PROBE_SECONDS", 0.1)

    async def good() -> str:
        return "as it should be"

    async def hanging() -> str:
        await asyncio.sleep(60)
        return ""

    async def broken() -> str:
        raise ConnectionError("redis://user:secret@somewhere")

    probes = (
        Probe("postgres", hard=True, check=good),
        Probe("temporal", hard=False, check=hanging),
        Probe("redis", hard=False, check=broken),
    )
    async with serve(create_app(replace(deps, probes=probes)), issuer) as api:
        found = (await api.get("/readyz")).ok()
    assert found["status"] == "degraded"
    assert {one["name"]: one["state"] for one in found["dependencies"]} == {
        "postgres": "ok",
        "temporal": "away",
        "redis": "away",
    }
    assert "secret" not in str(found)
