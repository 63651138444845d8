"""The development issuer: only beside no other, only on loopback, and verified like a real one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from api.app import create_app
from api.deps import Deps
from api.tokens import SigningKeys, TokenVerifier, fetch_keys_from
from models.settings import Settings
from tests.api.conftest import serve
from tests.api.issuer import TestIssuer
from tests.fixtures.companies import Company
from tests.fixtures.postgres import free_port
from workers.dev_issuer import DevIssuer, issuer_url, read_users, refuse_unless_alone

PASSWORD = "a test's password"


def _settings(**changes: Any) -> Settings:
    given: dict[str, Any] = {"dev_issuer_enabled": True, "dev_issuer_port": free_port(), "oidc_issuer": ""}
    return Settings.model_validate(given | changes)


@pytest.fixture
async def settings() -> AsyncIterator[Settings]:
    settings = _settings()
    key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    served = DevIssuer(
        issuer=issuer_url(settings),
        audience="awgp",
        key_pem=key,
        password=PASSWORD,
        users=read_users(Path("deploy/seed.yaml")),
    )
    runner = web.AppRunner(served.app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", settings.dev_issuer_port).start()
    yield settings
    await runner.cleanup()


async def _token(settings: Settings, body: Any, password: str = PASSWORD) -> tuple[int, dict[str, Any]]:
    url = f"http://127.0.0.1:{settings.dev_issuer_port}/token"
    headers = {"Authorization": f"Bearer {password}"}
    async with aiohttp.ClientSession() as client, client.post(url, data=json.dumps(body), headers=headers) as response:
        return response.status, await response.json(content_type=None)


async def test_its_tokens_get_in_by_discovery_alone(
    settings: Settings, deps: Deps, issuer: TestIssuer, acme: Company
) -> None:
    base = issuer_url(settings)
    async with aiohttp.ClientSession() as client, client.get(f"{base}/.well-known/openid-configuration") as response:
        found = await response.json()
    assert found["issuer"] == base
    keys = SigningKeys(fetch_keys_from(found["jwks_uri"]))
    tokens = TokenVerifier(keys, issuer=base, audience="awgp")
    async with serve(create_app(replace(deps, tokens=tokens)), issuer) as api:
        status, body = await _token(settings, {"user": "alice", "acr": "2", "lifetime": 60})
        assert status == 200
        me = (await api.get("/v1/me", body["access_token"])).ok()
        assert (me["username"], me["tenant"], me["acr"]) == ("alice", "acme", "2")
        assert me["roles"] == ["assistant_owner", "requester"]


async def test_its_jwks_holds_no_private_part(settings: Settings) -> None:
    url = f"{issuer_url(settings)}/protocol/openid-connect/certs"
    async with aiohttp.ClientSession() as client, client.get(url) as response:
        (key,) = (await response.json())["keys"]
    assert "d" not in key
    assert key["kid"]


@pytest.mark.parametrize(
    ("body", "password", "status"),
    [
        ({"user": "alice"}, "wrong", 401),
        ({"user": "alice"}, "", 401),
        ({"user": "nobody"}, PASSWORD, 404),
        ({"user": ""}, PASSWORD, 422),
        ({"user": "alice", "roles": ["tenant_admin"]}, PASSWORD, 422),
        ({"user": "alice", "lifetime": 10**9}, PASSWORD, 422),
        ([], PASSWORD, 422),
    ],
)
async def test_it_refuses(settings: Settings, body: Any, password: str, status: int) -> None:
    answer, problem = await _token(settings, body, password)
    assert answer == status
    assert "access_token" not in problem
    assert problem["detail"]


def test_it_starts_alone_or_beside_itself() -> None:
    refuse_unless_alone(_settings())
    settings = _settings(dev_issuer_port=4321)
    refuse_unless_alone(settings.model_copy(update={"oidc_issuer": issuer_url(settings)}))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"dev_issuer_enabled": False}, "is off"),
        ({"oidc_issuer": "https://login.example.com/realms/awgp"}, "a real issuer"),
        ({"dev_issuer_host": "0.0.0.0"}, "loopback"),
        ({"dev_issuer_host": "192.0.2.7"}, "loopback"),
        ({"dev_issuer_host": "localhost.example.com"}, "loopback"),
    ],
)
def test_it_refuses_to_start(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(SystemExit, match=why):
        refuse_unless_alone(_settings(**changes))
