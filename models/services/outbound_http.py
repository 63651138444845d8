"""Sending one request of a connector: to the addresses that were checked, within its time and its size.

The name is resolved once, each address looked at, and the connection made to one of exactly those: a name that changes
its mind (DNS rebinding) changes nothing. Redirects are followed by hand, each checked like the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from models.domain.action import HTTP_READS
from models.domain.connector import HttpConnector, N8nConnector
from models.domain.effect import Answer, Outcome
from models.rules import address, outbound
from models.rules.event_data import Redactor
from models.services.effect_requests import Request, kept_body
from models.services.plain_json import plain_json

MOST_REDIRECTS = 3
MOST_RESULT_CHARACTERS = 48 * 1024
"""Of an answer's body that the agent is told; with all around it within 64 KiB."""
_SEE_OTHER = frozenset({301, 302, 303})
_REPEAT_THERE = frozenset({307, 308})
_NOT_NOW = frozenset({408, 409, 425, 429})
"""To a repeat under the same key: too early, or the first one is still being worked on. It is sent again."""
_HIDDEN_HEADERS = frozenset({"set-cookie", "authorization", "proxy-authorization", "www-authenticate", "cookie"})
_SKIPPED = frozenset({"User-Agent", "Accept", "Accept-Encoding", "Content-Type"})

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class AddressRefusedError(Exception):
    """The name leads to an address that may not be reached."""


async def system_resolve(host: str, port: int) -> list[str]:
    """Every address that the system knows of a name."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=socket.AF_UNSPEC)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class HttpSender:
    """Sends connectors' requests.

    Args:
        resolve: How names become addresses.
        allow_private: Whether this installation lets connectors that say so reach private addresses.
    """

    def __init__(self, resolve: Resolve = system_resolve, *, allow_private: bool = False) -> None:
        self._resolve = resolve
        self._allow_private = allow_private

    async def send(self, config: HttpConnector | N8nConnector, request: Request) -> Answer:
        """Send it, once; says what is known after that, and never raises for what the other side does."""
        trace = _Trace()
        try:
            async with asyncio.timeout(config.timeout_seconds):
                return await self._follow(config, request, trace)
        except AddressRefusedError as error:
            return _nothing(Outcome.UNKNOWN if trace.sent else Outcome.NOT_ALLOWED, str(error), trace)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            words = request.hiding.hide(_said(error, config.timeout_seconds))
            if trace.sent:
                return _nothing(Outcome.UNKNOWN, f"no answer: {words}", trace)
            return _nothing(Outcome.NOT_SENT, f"not reached: {words}", trace)

    async def _follow(self, config: HttpConnector | N8nConnector, request: Request, trace: _Trace) -> Answer:
        first, current = request, request
        for _ in range(MOST_REDIRECTS + 1):
            got = await self._once(config, current, trace)
            following = _following(config, current, got)
            if following is None:
                return _answer(first, current, got, trace, takes_key=config.idempotency_header is not None)
            trace.hops.append(f"{got.status} → {request.hiding.hide(following.target.url)}")
            at_home = following.target.origin == first.target.origin
            current = replace(following, credential=first.credential if at_home else {})
        return _nothing(Outcome.UNKNOWN, f"more than {MOST_REDIRECTS} redirects", trace)

    async def _addresses(self, config: HttpConnector | N8nConnector, host: str, port: int) -> list[str]:
        try:
            found = [str(ip_address(host))]
        except ValueError:
            found = [str(one) for one in await self._resolve(host, port)]
        if not found:
            raise OSError(f"{host} has no address")
        private = self._allow_private and config.allow_private
        for one in found:
            # One bad address is enough: which of them a connection takes is nobody's to say.
            if not (address.is_public(one) or (private and address.may_be_private(one))):
                raise AddressRefusedError(f"{host} leads to {one}, which is not an address of the internet")
        return found

    async def _once(self, config: HttpConnector | N8nConnector, request: Request, trace: _Trace) -> _Got:
        target = request.target
        addresses = await self._addresses(config, target.host, target.port)
        connector = aiohttp.TCPConnector(
            resolver=_Pinned(target.host, addresses), use_dns_cache=False, force_close=True, limit=1
        )
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),  # one bound around all of it
                trace_configs=[trace.config()],
                skip_auto_headers=_SKIPPED,
            ) as client,
            client.request(
                request.method,
                URL(target.url, encoded=True),
                headers={
                    "User-Agent": "AWGP",
                    "Accept": "*/*",
                    "Accept-Encoding": "identity",
                    **request.headers,
                    **request.credential,
                },
                data=request.body,
                allow_redirects=False,
            ) as answer,
        ):
            body, whole = await _read(answer, config.most_response_bytes)
            return _Got(answer.status, dict(answer.headers), body, whole)


@dataclass(frozen=True)
class _Got:
    """One answer; `whole` says whether its body was read to the end."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers.items() if key.lower() == name), "")


class _Trace:
    """What happened on the way.

    Attributes:
        sent: A connection stood: from then on the other side may have read the request.
        hops: Redirects that were followed.
    """

    def __init__(self) -> None:
        self.sent = False
        self.hops: list[str] = []

    def config(self) -> aiohttp.TraceConfig:
        config = aiohttp.TraceConfig()

        async def connected(_session: aiohttp.ClientSession, _context: SimpleNamespace, _given: Any) -> None:
            self.sent = True

        config.on_connection_create_end.append(connected)
        return config


class _Pinned(AbstractResolver):
    """Knows one name, and the addresses that were checked."""

    def __init__(self, host: str, addresses: Sequence[str]) -> None:
        self._host = host
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host != self._host:
            raise OSError(f"{host} was not looked at")
        return [
            ResolveResult(
                hostname=host,
                host=one,
                port=port,
                family=socket.AF_INET6 if ":" in one else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for one in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is kept."""


async def _read(answer: aiohttp.ClientResponse, most: int) -> tuple[bytes, bool]:
    """The body up to `most`; what breaks off after the status is cut, for the status says what came of it."""
    body = bytearray()
    with contextlib.suppress(aiohttp.ClientError, OSError):
        while len(body) <= most:
            piece = await answer.content.read(min(65_536, most + 1 - len(body)))
            if not piece:
                return bytes(body), True
            body += piece
    return bytes(body[:most]), False


def _following(config: HttpConnector | N8nConnector, request: Request, got: _Got) -> Request | None:
    """The request that a redirect asks for; None: it is the answer, or leads where this connector does not go."""
    location = got.header("location")
    if got.status not in _SEE_OTHER | _REPEAT_THERE or not location:
        return None
    try:
        target = outbound.parse(urljoin(request.target.url, location))
        outbound.check(config, target)
    except (outbound.NotAllowedError, ValueError):
        return None
    if got.status in _REPEAT_THERE or request.method in HTTP_READS:
        return replace(request, target=target)
    methods = config.methods if isinstance(config, HttpConnector) else ("POST",)
    if "GET" not in methods:
        return None
    # RFC 9110, 15.4: what was changed is looked at by a GET, without the content and its key.
    kept = {name: value for name, value in request.headers.items() if name.lower() == "accept"}
    return replace(request, target=target, method="GET", headers=kept, body=None)


def _answer(first: Request, last: Request, got: _Got, trace: _Trace, *, takes_key: bool) -> Answer:
    outcome = _outcome(first, last, got.status, takes_key=takes_key)
    words = {
        Outcome.PERFORMED: f"the other side answered {got.status}",
        Outcome.FAILED: f"the other side refused it with {got.status}",
        Outcome.UNKNOWN: f"the other side answered {got.status}, which does not say whether it was done",
    }[outcome]
    hiding = first.hiding
    headers = _headers(got, hiding)
    record = {"status": got.status, "headers": headers, "hops": trace.hops, "sent": True, "words": words}
    record |= kept_body(got.body, hiding) | {"whole": got.whole}
    return Answer(outcome, words, record, _result(got, hiding, headers))


def _outcome(first: Request, last: Request, status: int, *, takes_key: bool) -> Outcome:
    if 200 <= status < 300:
        return Outcome.PERFORMED
    changes = first.method not in HTTP_READS
    if changes and last.method != first.method:
        return Outcome.UNKNOWN  # the change was answered by a redirect; what it led to is not there
    if changes and takes_key and status in _NOT_NOW:
        return Outcome.UNKNOWN
    if 400 <= status < 500 or status in _REPEAT_THERE or (300 <= status < 400 and not changes):
        return Outcome.FAILED
    return Outcome.UNKNOWN


def _headers(got: _Got, hiding: Redactor) -> dict[str, str]:
    shown = [(name, value) for name, value in got.headers.items() if name.lower() not in _HIDDEN_HEADERS]
    return {_plain(name)[:128]: hiding.hide(_plain(value))[:512] for name, value in shown[:40]}


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _result(got: _Got, hiding: Redactor, headers: dict[str, str]) -> dict[str, Any]:
    kind = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
    result: dict[str, Any] = {"status": got.status, "content_type": kind}
    text = hiding.hide(_plain(got.body[: MOST_RESULT_CHARACTERS * 2].decode("utf-8", "replace")))
    if got.whole and len(got.body) <= MOST_RESULT_CHARACTERS:
        with contextlib.suppress(ValueError, RecursionError):
            # Hidden once more: JSON may write any letter of a secret as an escape, and reading it takes that off.
            value = _hidden(json.loads(text), hiding)
            plain_json({"json": value})
            return result | {"json": value}
    kept = text.encode()[:MOST_RESULT_CHARACTERS].decode("utf-8", "ignore")
    return result | {"text": kept, "cut": not got.whole or len(kept) < len(text)}


def _hidden(value: Any, hiding: Redactor) -> Any:
    """A JSON value of which no text and no name holds a secret."""
    match value:
        case str():
            return hiding.hide_whole(value)
        case list():
            return [_hidden(one, hiding) for one in cast("list[Any]", value)]
        case dict():
            return {
                hiding.hide_whole(name): _hidden(one, hiding) for name, one in cast("dict[str, Any]", value).items()
            }
        case _:
            return value


def _nothing(outcome: Outcome, words: str, trace: _Trace) -> Answer:
    return Answer(outcome, words, {"sent": trace.sent, "hops": trace.hops, "words": words}, {})


def _said(error: Exception, seconds: int) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing within {seconds} s"
    return str(error)[:300] or type(error).__name__
