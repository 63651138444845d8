"""The HTTP face of the hub: the link itself, enrolment and blobs (aiohttp)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import AsyncIterator

import structlog
from aiohttp import WSMsgType, web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from sandbox.link.backend import ConnectedRuntime, LinkRefusedError
from sandbox.link.connection import RuntimeConnection
from sandbox.link.hub import RuntimeHub
from sandbox.link.messages import (
    BLOB_PATH,
    ENROL_PATH,
    LINK_AUDIENCE,
    LINK_PATH,
    MAX_FRAME_BYTES,
    Challenge,
    EnrolRequest,
    Hello,
    Kill,
    Refused,
    Welcome,
    encode,
    parse_from_runtime,
)

log = structlog.get_logger(__name__)

HUB = web.AppKey("hub", RuntimeHub)
_DIGEST = re.compile(r"[0-9a-f]{64}")


def create_link_app(hub: RuntimeHub) -> web.Application:
    """Returns the runtimes' endpoint; the broker serves it."""
    app = web.Application()
    app[HUB] = hub
    app.router.add_get(LINK_PATH, _link)
    app.router.add_post(ENROL_PATH, _enrol)
    app.router.add_get(BLOB_PATH, _get_blob)
    app.router.add_put(BLOB_PATH, _put_blob)
    return app


def _problem(status: int, title: str, detail: str = "") -> web.Response:
    return web.json_response(
        {"type": "about:blank", "title": title, "status": status, "detail": detail},
        status=status,
        content_type="application/problem+json",
    )


async def _enrol(request: web.Request) -> web.Response:
    hub = request.app[HUB]
    try:
        wanted = EnrolRequest.model_validate_json(await request.read())
        key = base64.b64decode(wanted.public_key, validate=True)
        Ed25519PublicKey.from_public_bytes(key)
    except (ValidationError, ValueError, binascii.Error):
        return _problem(422, "This is not an enrolment", "token, name and public_key are needed")
    try:
        identity = await hub.backend.enrol(wanted.token, wanted.name, key)
    except LinkRefusedError as refusal:
        return _problem(403, "Enrolment refused", refusal.reason)
    return web.json_response(text=identity.model_dump_json())


async def _link(request: web.Request) -> web.WebSocketResponse:
    hub = request.app[HUB]
    socket = web.WebSocketResponse(heartbeat=hub.times.heartbeat_seconds * 2, max_msg_size=MAX_FRAME_BYTES)
    await socket.prepare(request)
    try:
        connection, hello = await _authenticate(hub, socket)
        orders = await hub.backend.on_hello(connection.runtime, hello.live)
    except LinkRefusedError as refusal:
        await socket.send_str(encode(Refused(reason=refusal.reason)))
        await socket.close()
        return socket
    connection.seat.live = set(hello.live)
    await connection.send(
        Welcome(
            session_token=connection.session_token,
            lease_seconds=hub.times.lease_seconds,
            heartbeat_seconds=hub.times.heartbeat_seconds,
            warrant_jwks=hub.warrant_jwks,
            gateway_url=hub.gateway_url,
            api_url=hub.api_url,
        )
    )
    for order in orders:
        run = order.run
        await connection.send(Kill(run_id=run.run_id, attempt=run.attempt, reason=order.reason))
    await hub.attend(connection)
    return socket


async def _authenticate(hub: RuntimeHub, socket: web.WebSocketResponse) -> tuple[RuntimeConnection, Hello]:
    nonce = secrets.token_bytes(32)
    await socket.send_str(encode(Challenge(nonce=base64.b64encode(nonce).decode())))
    try:
        frame = await socket.receive(timeout=hub.times.hello_seconds)
    except TimeoutError:
        raise LinkRefusedError("no hello in time") from None
    if frame.type is not WSMsgType.TEXT:
        raise LinkRefusedError("a hello is expected first")
    try:
        hello = parse_from_runtime(frame.data)
    except ValidationError:
        raise LinkRefusedError("the hello could not be read") from None
    if not isinstance(hello, Hello):
        raise LinkRefusedError("a hello is expected first")
    key = await hub.backend.public_key(hello.runtime_id, hello.tenant_id)
    if key is None or not _signed(key, nonce, hello.signature):
        await hub.backend.on_refused(hello.runtime_id, hello.tenant_id, "signature")
        raise LinkRefusedError("unknown runtime or wrong signature")
    runtime = ConnectedRuntime(hello.runtime_id, hello.tenant_id, hello.facts, hello.capacity)
    log.info("runtime_connected", runtime_id=str(hello.runtime_id), live=len(hello.live))
    return RuntimeConnection(socket, runtime, hub.backend), hello


def _signed(key: bytes, nonce: bytes, signature: str) -> bool:
    try:
        proof = base64.b64decode(signature, validate=True)
        Ed25519PublicKey.from_public_bytes(key).verify(proof, nonce + LINK_AUDIENCE)
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True


def _session(request: web.Request) -> tuple[RuntimeHub, RuntimeConnection, str]:
    hub = request.app[HUB]
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    connection = hub.by_session(token) if scheme.lower() == "bearer" else None
    if connection is None:
        raise web.HTTPUnauthorized(text="a live session's token is needed")
    digest = request.match_info["sha256"]
    if not _DIGEST.fullmatch(digest):
        raise web.HTTPNotFound(text="no such blob")
    return hub, connection, digest


async def _get_blob(request: web.Request) -> web.StreamResponse:
    hub, connection, digest = _session(request)
    chunks = await hub.backend.open_blob(connection.runtime, digest)
    if chunks is None:
        return _problem(404, "No such blob")
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    await response.prepare(request)
    async for chunk in chunks:
        await response.write(chunk)
    await response.write_eof()
    return response


class _WrongDigestError(Exception):
    pass


async def _verified(request: web.Request, digest: str) -> AsyncIterator[bytes]:
    """Yields the body; raises after its last byte when it is not what the path says."""
    seen = hashlib.sha256()
    async for chunk in request.content.iter_chunked(64 * 1024):
        seen.update(chunk)
        yield chunk
    if seen.hexdigest() != digest:
        raise _WrongDigestError


async def _put_blob(request: web.Request) -> web.StreamResponse:
    hub, connection, digest = _session(request)
    try:
        await hub.backend.store_blob(connection.runtime, digest, _verified(request, digest))
    except _WrongDigestError:
        return _problem(422, "The content is not what the digest says")
    except LinkRefusedError as refusal:
        return _problem(403, "Blob refused", refusal.reason)
    return web.Response(status=204)
