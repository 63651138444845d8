"""Sends one request of an agent on, as the run that its warrant names, and the answer back, piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import structlog
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from sandbox.agent_headers import to_inside, to_outside
from sandbox.agent_problems import AgentRefusedError, too_large
from sandbox.agent_routes import Matched, Side
from sandbox.agent_upstreams import Upstreams

log = structlog.get_logger(__name__)

SMALL = 64 * 1024
"""Bodies up to this size travel as one piece: one write and no task each."""
_PIECE = 64 * 1024


@dataclass(frozen=True)
class Outside:
    """What one run's requests are sent with.

    Attributes:
        warrant: The run's credential. It is put on out here; nothing inside ever sees it.
    """

    upstreams: Upstreams
    warrant: str = field(repr=False)
    attempt: int


class Body:
    """An agent's request body, counted as it passes.

    Attributes:
        over: Set when it turned out larger than allowed.
    """

    def __init__(self, request: web.BaseRequest, most: int) -> None:
        self._request = request
        self._most = most
        self.over = False

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yields what comes; stops short with ``AgentRefusedError`` at the limit."""
        size = 0
        while piece := await self._request.content.read(_PIECE):
            size += len(piece)
            if size > self._most:
                self.over = True
                raise too_large(self._most)
            yield piece


async def forward(request: web.BaseRequest, matched: Matched, outside: Outside) -> web.StreamResponse:
    """Sends a listed request on and returns the finished answer.

    Raises:
        AgentRefusedError: The body is too large, or nobody answers outside.
    """
    side = matched.route.side
    url = URL(outside.upstreams.base(side) + matched.outside, encoded=True)
    most = matched.route.most_bytes or 0
    body = Body(request, most)
    headers = to_outside(request.headers.items())
    headers["Authorization"] = f"Bearer {outside.warrant}"
    headers["X-Awgp-Run-Attempt"] = str(outside.attempt)
    data = await _data(request, body, most, headers)
    try:
        async with outside.upstreams.http.request(
            request.method, url, headers=headers, data=data, allow_redirects=False
        ) as answer:
            return await _answer(request, answer, side)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise _away(503, side, "It cannot be reached", error) from error
    except aiohttp.ServerTimeoutError as error:
        raise _away(504, side, "It was silent for too long", error) from error
    except aiohttp.ClientError as error:
        if body.over:
            raise too_large(most) from error
        raise _away(502, side, "It ended the connection before it answered", error) from error


async def _data(
    request: web.BaseRequest, body: Body, most: int, headers: CIMultiDict[str]
) -> bytes | AsyncIterator[bytes] | None:
    """What is sent: a small body whole, another as it comes, with its length where the request says one."""
    if not request.body_exists:
        return None
    size = request.content_length
    if size is None:
        return body.pieces()
    if size > most:
        raise too_large(most)
    headers["Content-Length"] = str(size)
    return b"".join([piece async for piece in body.pieces()]) if size <= SMALL else body.pieces()


async def _answer(request: web.BaseRequest, answer: aiohttp.ClientResponse, side: Side) -> web.StreamResponse:
    headers = to_inside(answer.headers)
    headers["Server"] = "awgp"
    size = answer.content_length
    if size is not None and size <= SMALL:
        # An answer that is cut short is an error of its own, before a byte of it went in.
        whole = await answer.read()
        return web.Response(status=answer.status, reason=answer.reason, headers=headers, body=whole)
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
    if size is not None:
        response.content_length = size
    await response.prepare(request)
    try:
        async for piece in answer.content.iter_any():
            await response.write(piece)
        await response.write_eof()
    except (aiohttp.ClientError, TimeoutError) as error:
        # Too late for a problem document. What was cut off must not look whole: the connection ends without its end.
        log.warning("answer_cut_off", side=side, error=repr(error)[:200])
        request.protocol.force_close()
    return response


def _away(status: int, side: Side, what: str, error: Exception) -> AgentRefusedError:
    log.warning("upstream_failed", side=side, error=repr(error)[:200])
    detail = f"{what}. The request may be sent again; with the same idempotency key where it has one."
    return AgentRefusedError(status, "upstream-away", f"The {side} does not answer", detail, retry_after=1)
