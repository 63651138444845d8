"""A host runtime's side of the link, by hand: says what a real one would never say."""

from __future__ import annotations

import base64
import json
from typing import Any, cast
from uuid import UUID, uuid4

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sandbox.identity import Identity, load_names, own_key, public_key_text
from sandbox.link.messages import ENROL_PATH, LINK_AUDIENCE, LINK_PATH, Hello, RuntimeFacts, encode
from workers.stack.stack import Stack


def read_identity(stack: Stack, tenant: str) -> Identity:
    """Key and names of a tenant's real runtime, as somebody on its machine could read them."""
    folder = stack.paths.runtime(tenant)
    names = load_names(folder)
    assert names is not None
    return Identity(names, own_key(folder))


async def hello(
    session: aiohttp.ClientSession, stack: Stack, runtime_id: UUID, tenant_id: UUID, key: Ed25519PrivateKey
) -> dict[str, Any]:
    """Connect and introduce oneself; the broker's answer."""
    async with session.ws_connect(f"http://127.0.0.1:{stack.ports.broker}{LINK_PATH}") as socket:
        challenge = json.loads(await socket.receive_str(timeout=20))
        nonce = base64.b64decode(challenge["nonce"])
        message = Hello(
            runtime_id=runtime_id,
            tenant_id=tenant_id,
            signature=base64.b64encode(key.sign(nonce + LINK_AUDIENCE)).decode(),
            capacity=1,
            facts=RuntimeFacts(runtime_version="forged"),
        )
        await socket.send_str(encode(message))
        return cast("dict[str, Any]", json.loads(await socket.receive_str(timeout=20)))


async def enrol(session: aiohttp.ClientSession, stack: Stack, token: str) -> aiohttp.ClientResponse:
    """Enrol a key just made under a token."""
    key = public_key_text(Ed25519PrivateKey.generate())
    body = {"token": token, "name": f"forged-{uuid4().hex[:8]}", "public_key": key}
    return await session.post(f"http://127.0.0.1:{stack.ports.broker}{ENROL_PATH}", json=body)
