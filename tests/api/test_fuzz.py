"""Schemathesis over our own description: whatever fits it, and whatever does not, gets an answer that is described.

Bounded and seeded, so that it is the same run each time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from api.app import create_app, describe
from api.deps import Deps, Probe
from api.tokens import SigningKeys, TokenVerifier
from models.domain.principal import Role
from models.services.run_credentials import LiveRuns
from models.settings import Settings
from models.storage.blobs import BlobStore
from models.storage.cache import Cache
from models.storage.db import Database
from models.storage.vault import Vault
from tests.api.conftest import RecordingFastPath
from tests.api.issuer import AUDIENCE, TestIssuer
from tests.fixtures.companies import ISSUER
from tests.fixtures.postgres import TestDatabase, free_port
from tests.fixtures.valkey import ValkeyServer

EXAMPLES = 12

# A log stream is followed until its item ends; an item that hypothesis invents is a 404, which other tests look at.
SCHEMA = schemathesis.openapi.from_dict(describe().openapi()).exclude(path_regex="/logs$")


@pytest.fixture
def served(database: TestDatabase, valkey: ValkeyServer, tmp_path_factory: Any, issuer: TestIssuer) -> Iterator[str]:
    """The API in a thread with a loop of its own, since Schemathesis calls without one."""
    port = free_port()
    ready = threading.Event()
    server: uvicorn.Server | None = None

    async def body() -> None:
        nonlocal server
        db = Database(database.app_url)
        cache = Cache(valkey.url, "a test's key")
        deps = Deps(
            settings=Settings(),
            db=db,
            cache=cache,
            blobs=BlobStore(f"file://{tmp_path_factory.mktemp('fuzz')}"),
            tokens=TokenVerifier(SigningKeys(issuer.fetch), issuer=ISSUER, audience=AUDIENCE),
            fast_path=RecordingFastPath(),
            live_runs=LiveRuns(db),
            probes=(Probe("postgres", hard=True, check=_nothing),),
            vault=Vault(Vault.new_key()),
            close=(cache.close, db.close),
        )
        server = uvicorn.Server(
            uvicorn.Config(create_app(deps), host="127.0.0.1", port=port, log_config=None, ws="none")
        )
        serving = asyncio.create_task(server.serve())
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn tells it by a flag alone
            await asyncio.sleep(0.01)
        ready.set()
        await serving

    thread = threading.Thread(target=lambda: asyncio.run(body()))
    thread.start()
    assert ready.wait(30)
    yield f"http://127.0.0.1:{port}"
    assert server is not None
    server.should_exit = True
    thread.join(30)


async def _nothing() -> str:
    return ""


def test_no_input_breaks_the_api(served: str, issuer: TestIssuer) -> None:
    token = issuer.token(realm_access={"roles": [role.value for role in Role]})
    called: dict[str, int] = {}
    for result in SCHEMA.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()

        @seed(20261124)
        @settings(
            max_examples=EXAMPLES,
            database=None,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        )
        def attempt(case: schemathesis.Case) -> None:
            response = case.call(base_url=served, headers={"Authorization": f"Bearer {token}"}, timeout=20)
            called[case.operation.label] = called.get(case.operation.label, 0) + 1
            assert response.status_code < 500, (case.as_curl_command(), response.text)
            if response.status_code >= 400:
                assert response.headers["content-type"][0] == "application/problem+json", response.headers
            case.validate_response(response, checks=[content_type_conformance, response_schema_conformance])

        given(case=operation.as_strategy())(attempt)()
    assert len(called) >= 35, called
