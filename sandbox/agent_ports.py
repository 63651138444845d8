"""The host's side of an agent's two ports: plain HTTP on two Unix sockets in the run's folder.

The guest carries bytes between the agent's loopback and these sockets, and an agent may also dial them itself: what
holds is here. A request is matched against a list, counted, stripped of whatever says who asks, and sent on as the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from aiohttp import HttpVersion10, HttpVersion11, web

from sandbox.agent_forwarding import Outside, forward
from sandbox.agent_problems import MEDIA_TYPE, AgentRefusedError, document, render
from sandbox.agent_routes import AWGP_ROUTES, LLM_ROUTES, Matched, Route, Side, match
from sandbox.artifact_intake import ArtifactIntake
from sandbox.artifact_saving import Savings
from sandbox.guest_listener import listen_in

log = structlog.get_logger(__name__)

LLM_PORT, AWGP_PORT = 4010, 4020
LISTEN = {str(LLM_PORT): "llm.sock", str(AWGP_PORT): "awgp.sock"}
"""Port inside → socket, for the guest."""
ENVIRONMENT = {
    "OPENAI_BASE_URL": f"http://127.0.0.1:{LLM_PORT}/llm/v1",
    "OPENAI_API_BASE": f"http://127.0.0.1:{LLM_PORT}/llm/v1",
    # No credential: clients insist on one. It is dropped out here.
    "OPENAI_API_KEY": "awgp-inside",
    "AWGP_URL": f"http://127.0.0.1:{AWGP_PORT}",
    "AWGP_MCP_URL": f"http://127.0.0.1:{AWGP_PORT}/mcp",
}

MOST_REQUESTS = 256
_BACKLOG = 512
_LINGER_SECONDS = 3.0
_END_SECONDS = 0.05
_PIECE = 256 * 1024

_UNREAD = logging.getLogger("awgp.agent_ports.unread")
"""Gets a traceback for each request that cannot be parsed: an agent would write our log full with them."""
_UNREAD.disabled = True

_CROWDED = AgentRefusedError(503, "busy", "Too many connections at once", "Close some.", retry_after=1)


class AgentPorts:
    """The two servers of one run.

    Args:
        outside: What its requests are sent with.
        intake: Where it saves artifacts.
    """

    def __init__(self, outside: Outside, intake: ArtifactIntake) -> None:
        self._outside = outside
        self._savings = Savings(intake)
        self._asked = 0
        self._servers: list[web.Server] = []
        self._listening: list[asyncio.Server] = []

    async def open(self, folder: Path) -> None:
        """Listens. Sockets left by an earlier process are replaced; the guest finds the new ones. May be repeated."""
        if self._servers:
            return
        for name, routes in (("llm.sock", LLM_ROUTES), ("awgp.sock", AWGP_ROUTES)):
            server = web.Server(
                self._handler(routes),
                handler_cancellation=True,
                access_log=None,
                logger=_UNREAD,
                # A body goes on as it is; what it unpacks to is the other side's to bound.
                auto_decompress=False,
                lingering_time=_LINGER_SECONDS,
            )
            self._servers.append(server)
            listener = await asyncio.get_running_loop().create_unix_server(
                self._protocol(server), sock=listen_in(folder, name), backlog=_BACKLOG
            )
            self._listening.append(listener)

    async def close(self) -> None:
        """Ends both, and what is under way. May be repeated."""
        for listener in self._listening:
            listener.close()
        servers, self._servers, self._listening = self._servers, [], []
        await asyncio.gather(*(server.shutdown(_END_SECONDS) for server in servers))

    def _protocol(self, server: web.Server) -> Callable[[], asyncio.Protocol]:
        def made() -> asyncio.Protocol:
            if sum(len(each.connections) for each in self._servers) >= self._outside.upstreams.each:
                return _Crowded()
            return server()

        return made

    def _handler(self, routes: tuple[Route, ...]) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            self._asked += 1
            try:
                return await self._serve(request, routes)
            except AgentRefusedError as error:
                return render(error)
            except ConnectionError:
                raise  # The client is gone; the server knows what to do.
            except Exception:
                log.exception("agent_request_failed")
                return render(
                    AgentRefusedError(500, "internal-error", "The host runtime failed", "It is logged there.")
                )
            finally:
                self._asked -= 1

        return handle

    async def _serve(self, request: web.BaseRequest, routes: tuple[Route, ...]) -> web.StreamResponse:
        matched = match(routes, request.method, request.raw_path)
        if self._asked > MOST_REQUESTS:
            detail = f"A run may have {MOST_REQUESTS} requests under way."
            raise AgentRefusedError(503, "busy", "Too many requests at once", detail, retry_after=1)
        _check_framing(request)
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if matched.route.side is Side.HERE:
            return await self._save(request, matched)
        return await forward(request, matched, self._outside)

    async def _save(self, request: web.BaseRequest, matched: Matched) -> web.Response:
        escaped = matched.path.removeprefix("/artifacts/")
        saving = self._savings.begin(escaped, request.content_length)
        try:
            while piece := await request.content.read(_PIECE):
                saving.write(piece)
            artifact = await saving.keep()
        finally:
            saving.close()
        return web.json_response(artifact.model_dump(mode="json"), status=201)


def _check_framing(request: web.BaseRequest) -> None:
    """What the parser lets through and no route here can mean."""
    if request.version not in (HttpVersion10, HttpVersion11):
        raise AgentRefusedError(400, "bad-request", "Bad request", "HTTP/1.0 and HTTP/1.1 are spoken here.")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        detail = "Send the body as it is, without Content-Encoding."
        raise AgentRefusedError(415, "unsupported-media-type", "Unsupported content encoding", detail)
    if len(request.headers.getall("Content-Length", [])) > 1 or (
        "Content-Length" in request.headers and "Transfer-Encoding" in request.headers
    ):
        request.protocol.close()
        raise AgentRefusedError(400, "bad-request", "Bad request", "The length of the body is said twice.")


class _Crowded(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        body = json.dumps(document(_CROWDED)).encode()
        head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {MEDIA_TYPE}\r\nRetry-After: 1\r\n"
        with contextlib.suppress(OSError):
            transport.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        transport.close()
