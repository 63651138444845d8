"""What the gateway needs of ASGI: reading a body, sending an answer, and which headers travel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from api.gateway.refusals import Header, TooLarge
from models.domain.errors import Unauthenticated

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MOST_BODY_BYTES = 8 * 1024 * 1024

_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
     b"trailer", b"transfer-encoding", b"upgrade"}
)  # fmt: skip
"""RFC 9110, section 7.6.1."""
_NOT_UP = _HOP_BY_HOP | {
    b"host", b"content-length", b"accept-encoding", b"authorization", b"cookie", b"expect", b"forwarded", b"via",
    b"x-api-key", b"api-key", b"openai-organization", b"openai-project",
}  # fmt: skip
"""What stays here of a request: credentials and addresses are ours to say."""
_NOT_DOWN = _HOP_BY_HOP | {b"content-length", b"content-encoding", b"set-cookie", b"date", b"server"}
"""What stays here of an answer: its body is passed on as it reads, and its length and encoding are then ours."""


class ClientGoneError(Exception):
    """The caller left before its request was whole."""


def bearer(scope: Scope) -> str:
    """The token of the request.

    Raises:
        Unauthenticated: It bears none.
    """
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, token = value.decode("latin-1").partition(" ")
            if kind.lower() == "bearer" and token:
                return token.strip()
            break
    raise Unauthenticated(
        "show the run's warrant as a bearer token; inside a sandbox that is done for you", code="token"
    )


async def read_body(receive: Receive) -> bytes:
    """The whole body.

    Raises:
        TooLarge: It is larger than `MOST_BODY_BYTES`.
        ClientGoneError: It never came whole.
    """
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body"):
        if len(body) > MOST_BODY_BYTES:
            raise TooLarge(f"a request may have {MOST_BODY_BYTES:,} bytes")
        return body
    parts: list[bytes] = []
    size = 0
    while True:
        if message["type"] != "http.request":
            raise ClientGoneError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_BODY_BYTES:
            raise TooLarge(f"a request may have {MOST_BODY_BYTES:,} bytes")
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()


def upward(headers: Iterable[Header]) -> list[tuple[str, str]]:
    """A request's headers as the upstream gets them."""
    return [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in headers
        if name not in _NOT_UP and not name.startswith((b"x-awgp-", b"x-forwarded-"))
    ]


def downward(headers: Iterable[Header]) -> list[Header]:
    """An answer's headers as the caller gets them."""
    return [(name, value) for raw, value in headers if (name := raw.lower()) not in _NOT_DOWN]


async def answer(send: Send, status: int, headers: list[Header], body: bytes) -> None:
    """Send a whole answer."""
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
