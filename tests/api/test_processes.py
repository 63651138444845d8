"""The API and the development issuer as the processes that they are, started in either order, without Temporal."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.fixtures.postgres import TestDatabase, free_port
from tests.fixtures.valkey import ValkeyServer


@asynccontextmanager
async def _process(module: str, environment: dict[str, str], log: Path) -> AsyncGenerator[asyncio.subprocess.Process]:
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, env=environment, stdout=output, stderr=output
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 20)


async def _until(client: aiohttp.ClientSession, url: str, log: Path) -> Any:
    for _ in range(300):
        try:
            async with client.get(url) as response:
                return response.status, await response.json(content_type=None)
        except aiohttp.ClientError:
            await asyncio.sleep(0.1)
    raise AssertionError(await asyncio.to_thread(log.read_text))


async def test_started_together_they_serve(database: TestDatabase, valkey: ValkeyServer, tmp_path: Path) -> None:
    api_port, issuer_port = free_port(), free_port()
    key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWGP_")} | {
        "AWGP_DATA": str(tmp_path),
        "AWGP_API_PORT": str(api_port),
        "AWGP_DATABASE_APP_URL": database.app_url,
        "AWGP_REDIS_URL": valkey.url,
        "AWGP_REDIS_TENANT_KEY": "k",
        "AWGP_TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}",
        "AWGP_BROKER_PORT": str(free_port()),
        "AWGP_AGENT_GATEWAY_URL": f"http://127.0.0.1:{free_port()}",
        "AWGP_DEV_ISSUER_ENABLED": "true",
        "AWGP_DEV_ISSUER_PORT": str(issuer_port),
        "AWGP_DEV_ISSUER_KEY": key,
        "AWGP_DEV_ISSUER_PASSWORD": "p",
        "AWGP_OIDC_ISSUER": f"http://127.0.0.1:{issuer_port}/realms/awgp",
    }
    log, url = tmp_path / "api.log", f"http://127.0.0.1:{api_port}"
    async with aiohttp.ClientSession() as client, _process("workers.api", environment, log):
        status, ready = await _until(client, f"{url}/readyz", log)
        assert (status, ready["status"]) == (200, "degraded"), ready
        states = {one["name"]: one["state"] for one in ready["dependencies"]}
        there, away = ("postgres", "blobs", "redis"), ("temporal", "broker", "gateway")
        assert states == dict.fromkeys(there, "ok") | dict.fromkeys(away, "away")
        headers = {"Authorization": "Bearer a.b.c"}
        async with client.get(f"{url}/v1/me", headers=headers) as response:
            assert response.status == 401, "nobody's token is looked up at an issuer that is away"
        async with _process("workers.dev_issuer", environment, tmp_path / "issuer.log"):
            base = f"http://127.0.0.1:{issuer_port}"
            await _until(client, f"{base}/realms/awgp/protocol/openid-connect/certs", tmp_path / "issuer.log")
            async with client.post(
                f"{base}/token", json={"user": "alice"}, headers={"Authorization": "Bearer p"}
            ) as response:
                token = (await response.json())["access_token"]
            async with client.get(f"{url}/v1/me", headers={"Authorization": f"Bearer {token}"}) as response:
                assert response.status == 200, await response.text()
                assert (await response.json())["username"] == "alice"
    assert token not in await asyncio.to_thread(log.read_text)
