"""What a body must be before a route sees it: small enough, of the right type, and text that PostgreSQL can keep."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any, NoReturn, cast
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import BadRequestError, TooLargeError, UnsupportedMediaTypeError, render
from models.domain.errors import AwgpError, InvalidInput

DRAIN_BYTES = 16 * 1024 * 1024
DRAIN_SECONDS = 5.0

STREAMED = frozenset({"/v1/files", "/v1/agent/state"})
"""Of any content, read by their routes, which count for themselves."""


class BodyGuard:
    """Reads a JSON body up to its limit, checks it, and hands it on whole.

    INVARIANT: no more than `max_bytes` (plus one chunk) of a JSON body is ever held.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            _check_address(scope)
            body = None if scope["path"] in STREAMED else await self._read(scope, receive)
            if body:
                _check_text(Headers(scope=scope), body)
        except AwgpError as error:
            if isinstance(error, TooLargeError):
                await drain(receive)
            await render(error)(scope, receive, send)
            return
        await self._app(scope, receive if body is None else _replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        if scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            return None
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > self._max_bytes:
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise BadRequestError("The connection ended before the body did.")
            chunk = cast("bytes", message.get("body", b""))
            size += len(chunk)
            if size > self._max_bytes:
                raise self._too_large()
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)

    def _too_large(self) -> TooLargeError:
        return TooLargeError(f"A JSON body has at most {self._max_bytes} bytes.", max_bytes=self._max_bytes)


async def drain(receive: Receive) -> None:
    """Throw away what is still being sent, within bounds.

    A server that hangs up on a sender resets the connection, and the sender never sees why.
    """
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while size < DRAIN_BYTES:
                message = await receive()
                size += len(cast("bytes", message.get("body", b"")))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replayed() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _check_address(scope: Scope) -> None:
    for name, raw in (("path", scope.get("raw_path") or b""), ("query", scope.get("query_string") or b"")):
        decoded = unquote_to_bytes(cast("bytes", raw))
        if b"\0" in decoded:
            raise _bad_text(name, "has a NUL byte")
        try:
            decoded.decode()
        except UnicodeDecodeError as error:
            raise _bad_text(name, "is not UTF-8") from error


def _check_text(headers: Headers, body: bytes) -> None:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaTypeError(
            f"The body must be application/json, not {media_type[:60] or 'without a type'}.",
            accepts=["application/json"],
        )
    try:
        document = json.loads(body, parse_constant=_no_constant)
    except RecursionError as error:
        raise _bad_text("body", "is nested too deeply") from error
    except ValueError as error:
        raise _bad_text("body", f"is not JSON: {str(error)[:200]}") from error
    place = _unstorable(document)
    if place is not None:
        raise _bad_text("body" + place, "has a NUL byte or half of a surrogate pair, which no text may hold")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _unstorable(document: Any) -> str | None:
    """Where a string stands that PostgreSQL cannot keep. A stack of our own: depth is the sender's choice."""
    todo: list[tuple[str, Any]] = [("", document)]
    while todo:
        place, value = todo.pop()
        if isinstance(value, str):
            if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
                return place
        elif isinstance(value, dict):
            pairs = cast("dict[str, Any]", value)
            todo.extend((place, key) for key in pairs)
            todo.extend(
                (f"{place}.{key[:60]!a}" if not key.isidentifier() else f"{place}.{key}", inner)
                for key, inner in pairs.items()
            )
        elif isinstance(value, list):
            todo.extend((f"{place}[{index}]", inner) for index, inner in enumerate(cast("list[Any]", value)))
    return None


def _bad_text(place: str, what: str) -> InvalidInput:
    return InvalidInput(f"{place}: {what}", errors=[{"where": place, "what": what}])
