"""The API over real HTTP, on a real PostgreSQL and a real Valkey, with tokens of real keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.deps import Deps, Probe
from api.tokens import SigningKeys, TokenVerifier
from models.domain.principal import Principal
from models.services.run_credentials import LiveRuns, RunWarrants
from models.settings import Settings
from models.storage.blobs import BlobStore
from models.storage.cache import Cache
from models.storage.db import Database
from models.storage.vault import Vault
from tests.api.issuer import AUDIENCE, TestIssuer
from tests.fixtures.companies import ISSUER
from tests.fixtures.postgres import TestDatabase, free_port
from tests.fixtures.runs import VERIFIER
from tests.fixtures.valkey import ValkeyServer


@dataclass
class RecordingFastPath:
    """The null implementation: Temporal is told nothing, and the test sees what it would have been told."""

    told: list[tuple[Any, ...]] = field(default_factory=list)

    async def start_work_item(self, tenant_id: UUID, work_item_id: UUID) -> None:
        self.told.append(("start", tenant_id, work_item_id))

    async def signal_work_item(self, tenant_id: UUID, work_item_id: UUID) -> None:
        self.told.append(("work_item", tenant_id, work_item_id))

    async def signal_approval(self, approval_id: UUID) -> None:
        self.told.append(("approval", approval_id))


@dataclass
class Answer:
    status: int
    headers: Any
    body: Any

    def problem(self, status: int) -> dict[str, Any]:
        """Assert that it is a problem document of this status, and give it."""
        assert self.status == status, self.body
        assert self.headers["Content-Type"] == "application/problem+json", self.headers
        assert self.body["type"].startswith("https://awgp.example.com/problems/")
        assert self.body["status"] == status
        assert self.body["title"]
        assert self.body["detail"]
        return self.body

    def ok(self, status: int = 200) -> Any:
        assert self.status == status, self.body
        return self.body


@dataclass
class Client:
    """Calls the served API."""

    url: str
    session: aiohttp.ClientSession
    issuer: TestIssuer

    async def call(
        self,
        method: str,
        path: str,
        who: Principal | str | None = None,
        *,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> Answer:
        """Call as a principal (with a fresh token), with a token of the test's own making, or as nobody."""
        sent = dict(headers or {})
        if isinstance(options.get("data"), bytes):
            options["data"] = BytesIO(options["data"])
        if who is not None:
            sent["Authorization"] = f"Bearer {who if isinstance(who, str) else self.issuer.token(who)}"
        async with self.session.request(method, self.url + path, headers=sent, **options) as response:
            raw = await response.read()
            is_json = (
                "json" in response.headers.get("Content-Type", "") and "ndjson" not in response.headers["Content-Type"]
            )
            return Answer(response.status, response.headers, await response.json() if is_json and raw else raw)

    async def get(self, path: str, who: Principal | str | None = None, **options: Any) -> Answer:
        return await self.call("GET", path, who, **options)

    async def post(self, path: str, who: Principal | str | None, body: Any, **options: Any) -> Answer:
        return await self.call("POST", path, who, json=body, **options)


@asynccontextmanager
async def serve(app: FastAPI, issuer: TestIssuer) -> AsyncGenerator[Client]:
    """Serve an application on a free port of loopback while the context lasts."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, timeout_graceful_shutdown=1, ws="none")
    )
    running = asyncio.create_task(server.serve())
    while not server.started:
        if running.done():
            running.result()
        await asyncio.sleep(0.01)
    try:
        async with aiohttp.ClientSession() as session:
            yield Client(f"http://127.0.0.1:{port}", session, issuer)
    finally:
        server.should_exit = True
        await running


@pytest.fixture(scope="session")
def issuer() -> TestIssuer:
    return TestIssuer()


@pytest.fixture
def fast_path() -> RecordingFastPath:
    return RecordingFastPath()


@pytest.fixture
async def deps(
    db: Database,
    valkey: ValkeyServer,
    tmp_path: Path,
    issuer: TestIssuer,
    fast_path: RecordingFastPath,
) -> AsyncIterator[Deps]:
    cache = Cache(valkey.url, "a test's key")

    async def postgres() -> str:
        await db.ping()
        return ""

    yield Deps(
        settings=Settings(max_body_bytes=262_144, max_file_bytes=1_048_576),
        db=db,
        cache=cache,
        blobs=BlobStore(f"file://{tmp_path}/blobs"),
        tokens=TokenVerifier(SigningKeys(issuer.fetch), issuer=ISSUER, audience=AUDIENCE),
        fast_path=fast_path,
        live_runs=LiveRuns(db),
        warrants=RunWarrants(VERIFIER),
        probes=(Probe("postgres", hard=True, check=postgres),),
        vault=Vault(Vault.new_key()),
    )
    await cache.close()


@pytest.fixture
async def api(deps: Deps, issuer: TestIssuer) -> AsyncIterator[Client]:
    async with serve(create_app(deps), issuer) as client:
        yield client


@pytest.fixture
async def api_without_postgres(deps: Deps, issuer: TestIssuer) -> AsyncIterator[Client]:
    """The API whose PostgreSQL is not there: nothing listens on its port."""
    db = Database(f"postgresql+psycopg://awgp_app:x@127.0.0.1:{free_port()}/awgp")

    async def ping() -> str:
        await db.ping()
        return ""

    gone = replace(deps, db=db, live_runs=LiveRuns(db), probes=(Probe("postgres", hard=True, check=ping),))
    async with serve(create_app(gone), issuer) as client:
        yield client
    await db.close()


@dataclass(frozen=True)
class RowCounts:
    database: TestDatabase

    def __call__(self) -> dict[str, int]:
        """How many rows each table has, counted by a superuser; noise is counted by intent."""
        with self.database.admin() as admin:
            names = admin.execute(
                "select tablename from pg_tables where schemaname = 'public' and tablename not like 'audit_events_%'"
                " and tablename <> 'noise'"
            ).fetchall()
            counts: dict[str, int] = {}
            for (name,) in names:
                row = admin.execute(f'select count(*) from "{name}"'.encode()).fetchone()
                assert row is not None
                counts[str(name)] = int(str(row[0]))
            return counts


@pytest.fixture
def row_counts(database: TestDatabase) -> RowCounts:
    return RowCounts(database)
