"""The gateway as an ASGI application. Two routes are busy, so there is no framework between them and the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import structlog

from api.gateway import price_book, refusals
from api.gateway.admission import Admission
from api.gateway.calls import Calls
from api.gateway.exchange import ClientGoneError, Receive, Scope, Send, answer, bearer
from api.gateway.price_book import PriceBook
from api.gateway.price_feed import PriceFeed
from api.gateway.refusals import NotHere
from api.gateway.settling import Settling
from api.gateway.upstream import Upstream
from models.domain.errors import AwgpError
from models.services.llm_ledger import Flusher
from models.services.llm_spool import LlmSpool

COMPLETIONS = "/llm/v1/chat/completions"
MODELS = "/llm/v1/models"
DRAIN_SECONDS = 20.0
_JSON = (b"content-type", b"application/json")

log = structlog.get_logger("gateway")

Check = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Parts:
    """What the gateway stands on; made by its composition root.

    Attributes:
        checks: What readiness asks, by name; one that raises is away.
        close: Called at the end, in this order.
        feed: Reads the upstream's own prices; None: it has no list.
    """

    admission: Admission
    upstream: Upstream
    settling: Settling
    flusher: Flusher
    spool: LlmSpool
    prices: PriceBook
    cap_field: str
    checks: dict[str, Check]
    close: Sequence[Callable[[], Awaitable[None]]]
    feed: PriceFeed | None = None


class Gateway:
    """The application."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._calls = Calls(parts.admission, parts.upstream, parts.settling, parts.cap_field)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the application's life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            return
        started = False

        async def sending(message: dict[str, object]) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            if scope["path"] == COMPLETIONS and scope["method"] == "POST":
                await self._calls.complete(scope, receive, sending)  # pyright: ignore[reportArgumentType]
            else:
                await self._others(scope, send)
        except ClientGoneError:
            return
        except AwgpError as error:
            if started:
                raise
            await answer(send, *refusals.render(error))
        except Exception as error:
            log.exception("bug", path=scope["path"])
            if started:
                raise
            fault = AwgpError(f"the gateway failed: {type(error).__name__}; the operator finds it in its log")
            await answer(send, *refusals.render(fault))

    async def _others(self, scope: Scope, send: Send) -> None:
        path: str = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            raise NotHere(f"there are POST {COMPLETIONS} and GET {MODELS}")
        if path == "/healthz":
            await answer(send, 200, [_JSON], b'{"status":"ok"}')
        elif path == "/readyz":
            await self._ready(send)
        elif path == MODELS or path.startswith(f"{MODELS}/"):
            await self._models(scope, send, unquote(path[len(MODELS) + 1 :]))
        else:
            raise NotHere(f"there are POST {COMPLETIONS} and GET {MODELS}")

    async def _models(self, scope: Scope, send: Send, name: str) -> None:
        claims = await self._parts.admission.who(bearer(scope))
        patterns = await self._parts.admission.models(claims)
        if not name:
            found = price_book.listed(self._parts.prices.allowed(patterns))
        else:
            card = self._parts.prices.card(name)
            if card is None or not price_book.allows(patterns, name):
                raise NotHere(f"there is no model {name[:200]!r} here; see GET {MODELS}")
            found = price_book.described(card)
        await answer(send, 200, [_JSON], json.dumps(found).encode())

    async def _ready(self, send: Send) -> None:
        away: dict[str, str] = {}
        for name, check in self._parts.checks.items():
            try:
                async with asyncio.timeout(3):
                    await check()
            except Exception as error:
                away[name] = str(error)[:200] or type(error).__name__
        state = {"status": "away" if away else "ready", "away": away}
        await answer(send, 503 if away else 200, [_JSON], json.dumps(state).encode())

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        parts, stop = self._parts, asyncio.Event()
        await parts.upstream.open()
        loops = (parts.flusher, parts.prices, *([parts.feed] if parts.feed else []))
        tasks = [asyncio.create_task(part.run(stop)) for part in loops]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await parts.settling.drain(DRAIN_SECONDS)
        stop.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        parts.spool.close()
        await parts.upstream.close()
        for close in parts.close:
            await close()
        await send({"type": "lifespan.shutdown.complete"})
