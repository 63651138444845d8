"""Prices that the upstream itself lists, read every few hours by a running gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import quote, urlsplit

import aiohttp
import structlog

from models.domain.rate_card import RateCard
from models.services import price_sources, rate_cards
from models.services.price_sources import NoPriceError
from models.services.rate_cards import LISTED_BY_UPSTREAM
from models.storage.db import Database

log = structlog.get_logger(__name__)

EVERY_SECONDS = 6 * 3600
AFTER_FAILURE_SECONDS = 600
MOST_BYTES = 32 * 1024 * 1024
ROUND_SECONDS = 180
REQUEST_SECONDS = 20
AT_ONCE = 4
_FAILURES = (aiohttp.ClientError, OSError, TimeoutError, ValueError)


class PriceFeed:
    """Adds what an upstream with a list like OpenRouter's asks for its models; who prices calls reads them from there.

    Args:
        db: Where versions are added.
        base_url: Of the upstream, as calls go to it.
        key: Its key; empty: none is shown.
    """

    def __init__(self, db: Database, base_url: str, key: str = "") -> None:
        self._db = db
        self._base = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._source = LISTED_BY_UPSTREAM + (urlsplit(base_url).netloc.rpartition("@")[2] or base_url)[:200]

    async def run(self, stop: asyncio.Event) -> None:
        """Read the list now and then until told to stop; what goes wrong is logged, and prices stay as they are."""
        while not stop.is_set():
            pause = EVERY_SECONDS
            try:
                await self.read()
            except Exception as error:  # whatever an upstream calls a list, no call waits for it
                log.warning("prices_not_read", upstream=self._source, why=str(error)[:200] or type(error).__name__)
                pause = AFTER_FAILURE_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await stop.wait()
            except TimeoutError:
                continue

    async def read(self) -> int:
        """Read the upstream's list once; how many new versions it gave.

        Raises:
            aiohttp.ClientError, TimeoutError, ValueError: It could not be read; nothing was added.
        """
        async with asyncio.timeout(ROUND_SECONDS), aiohttp.ClientSession(headers=self._headers) as http:
            document = await _get(http, f"{self._base}/models")
            at = await rate_cards.moment(self._db)
            cards = await asyncio.to_thread(price_sources.from_list, document, at, self._source)
            listed = {entry.get("id"): entry for entry in _entries(document)}
            cards = await self._with_endpoints(http, cards, listed)
        added = await rate_cards.add(self._db, cards)
        log.info("prices_read", upstream=self._source, listed=len(listed), priced=len(cards), added=added)
        return added

    async def _with_endpoints(
        self, http: aiohttp.ClientSession, cards: list[RateCard], listed: Mapping[Any, Mapping[str, Any]]
    ) -> list[RateCard]:
        """The same cards at the dearest of each model's endpoints, where the upstream tells them apart.

        A model whose endpoints could not be read this time is left out: its card stays as it is.
        """
        if not cards or await self._endpoints(http, cards[0].model) is None:
            return cards
        places = asyncio.Semaphore(AT_ONCE)

        async def dearest(card: RateCard) -> RateCard | None:
            async with places:
                endpoints = await self._endpoints(http, card.model)
            if endpoints is None:
                return None
            return price_sources.listed_card(listed[card.model], endpoints, card.effective_from, card.source)

        made = await asyncio.gather(*(dearest(card) for card in cards))
        return [card for card in made if card is not None]

    async def _endpoints(self, http: aiohttp.ClientSession, model: str) -> list[Any] | None:
        try:
            document = await _get(http, f"{self._base}/models/{quote(model, safe='/:')}/endpoints")
        except _FAILURES:
            return None
        data: Any = cast("dict[str, Any]", document).get("data") if isinstance(document, dict) else None
        found: Any = cast("dict[str, Any]", data).get("endpoints") if isinstance(data, dict) else None
        return cast("list[Any]", found) if isinstance(found, list) else None


async def _get(http: aiohttp.ClientSession, url: str) -> Any:
    timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
    async with http.get(url, timeout=timeout, allow_redirects=False) as answer:
        if answer.status != 200:
            raise NoPriceError(f"GET {answer.url.path} answered {answer.status}")
        body = bytearray()
        async for chunk in answer.content.iter_any():
            body += chunk
            if len(body) > MOST_BYTES:
                raise NoPriceError(f"GET {answer.url.path} answered more than {MOST_BYTES} bytes")
    return await asyncio.to_thread(json.loads, bytes(body))


def _entries(document: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in document["data"] if isinstance(entry, dict)]
