"""Every error leaves as `application/problem+json` (RFC 9457), rendered in this one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from uuid import uuid4

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.domain.errors import AwgpError, DependencyAway, Forbidden, InvalidInput, Unauthenticated

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE_BASE = "https://awgp.example.com/problems/"
RETRY_AFTER_SECONDS = 5
INSUFFICIENT_PRIVILEGE = "42501"

_TITLES = {
    400: ("bad-request", "Bad request"),
    401: ("unauthenticated", "Not authenticated"),
    403: ("forbidden", "Not allowed"),
    404: ("not-found", "Not found"),
    405: ("method-not-allowed", "Method not allowed"),
    406: ("not-acceptable", "Not acceptable"),
    413: ("too-large", "Request body too large"),
    415: ("unsupported-media-type", "Unsupported media type"),
    422: ("invalid-input", "Invalid input"),
}


class TooLargeError(AwgpError):
    """The body is larger than the route takes."""

    type, title, status = "too-large", "Request body too large", 413


class UnsupportedMediaTypeError(AwgpError):
    """The body's content type is not the one that the route takes."""

    type, title, status = "unsupported-media-type", "Unsupported media type", 415


class BadRequestError(AwgpError):
    """The request lacks something that every request of this kind carries."""

    type, title, status = "bad-request", "Bad request", 400


def problem(
    slug: str,
    title: str,
    status: int,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> JSONResponse:
    """One problem document. `extra` becomes further members; it never replaces a standard one."""
    body = {**(extra or {}), "type": TYPE_BASE + slug, "title": title, "status": status, "detail": detail}
    return JSONResponse(body, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def render(error: AwgpError) -> JSONResponse:
    """The problem document of a domain error."""
    headers: dict[str, str] = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="awgp"'
    if isinstance(error, DependencyAway):
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    extra = cast("dict[str, Any]", _plain(error.extra))
    return problem(error.type, error.title, error.status, error.detail, headers=headers, extra=extra)


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value)
        return {str(key): _plain(inner) for key, inner in pairs.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in cast("list[object]", value)]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def to_domain(error: Exception) -> AwgpError | None:
    """The domain error behind a library's, or None for a bug."""
    if isinstance(error, AwgpError):
        return error
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "sqlstate", None)
        if state == INSUFFICIENT_PRIVILEGE:
            return Forbidden("The database refuses this: it is not your tenant's to change.")
        # No SQLSTATE: the connection itself failed. Classes 08, 53, 57 and 58 are the server's own troubles.
        if error.connection_invalidated or state is None or str(state)[:2] in {"08", "53", "57", "58"}:
            return DependencyAway("PostgreSQL does not answer; nothing was written. Try again.", dependency="postgres")
        return None
    if isinstance(error, PoolTimeoutError):
        return DependencyAway("Every database connection is busy. Try again.", dependency="postgres")
    if isinstance(error, RedisConnectionError | RedisTimeoutError):
        return DependencyAway("Redis does not answer. Try again.", dependency="redis")
    return None


def where(location: tuple[int | str, ...]) -> str:
    """`('body', 'facts', 'tools', 3)` as people read it: `body.facts.tools[3]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


async def _on_domain_error(_request: Request, error: Exception) -> Response:
    return render(cast("AwgpError", error))


async def _on_invalid(_request: Request, error: Exception) -> Response:
    faults = cast("RequestValidationError", error).errors()
    errors = [{"where": where(fault["loc"]), "what": fault["msg"].removeprefix("Value error, ")} for fault in faults]
    first = errors[0] if errors else {"where": "body", "what": "is not valid"}
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return render(InvalidInput(f"{first['where']}: {first['what']}{more}", errors=errors[:50]))


async def _on_http(_request: Request, error: Exception) -> Response:
    failure = cast("HTTPException", error)
    slug, title = _TITLES.get(failure.status_code, ("http", "Request failed"))
    return problem(slug, title, failure.status_code, str(failure.detail), headers=failure.headers)


class LastResort:
    """Outermost layer: whatever nobody rendered becomes a problem document, with an id to find it in the log by.

    INVARIANT: the text of an unexpected error never leaves the process.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False
        request_id = uuid4().hex

        async def watched(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            known = to_domain(error)
            if known is None:
                log.exception("request_failed", request_id=request_id, path=scope["path"])
            if started:
                raise
            response = (
                render(known)
                if known is not None
                else problem(
                    "internal",
                    "Internal error",
                    500,
                    f"This is our fault. Tell the operator the request id {request_id}.",
                    extra={"request_id": request_id},
                )
            )
            await response(scope, receive, watched)


def install(app: FastAPI) -> None:
    """Render every kind of error that reaches the application."""
    app.add_exception_handler(AwgpError, _on_domain_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
