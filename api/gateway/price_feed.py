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
from models.services.rate_cards import LISTED_BY_UPSTREAM, RateCards
from models.storage.db import Database

log = structlog.get_logger(__name__)

EVERY_SECONDS = 6 * 3600
AFTER_FAILURE_SECONDS = 600
LOOK_SECONDS = 30
"""How often the copy in memory is compared with the database, where another process may have added a price."""
MOST_BYTES = 32 * 1024 * 1024
ROUND_SECONDS = 180
REQUEST_SECONDS = 20
AT_ONCE = 4
_FAILURES = (aiohttp.ClientError, OSError, TimeoutError, ValueError)


class PriceFeed:
    """Keeps `cards` fresh, and adds what an upstream with a list like OpenRouter's asks for its models.

    Args:
        db: Where versions are added.
        cards: The gateway's copy in memory.
        http: Shared with the calls.
        base_url: Of the upstream, with `/v1`.
        headers: What it wants to see, such as its key.
    """

    def __init__(
        self, db: Database, cards: RateCards, http: aiohttp.ClientSession, base_url: str, headers: Mapping[str, str]
    ) -> None:
        self._db = db
        self._cards = cards
        self._http = http
        self._base = base_url.rstrip("/")
        self._headers = dict(headers)
        self._source = LISTED_BY_UPSTREAM + (urlsplit(base_url).netloc or base_url)[:200]

    async def run(self) -> None:
        """Read the list now and then, and look for new cards in between; ended by cancellation. Never raises else."""
        loop = asyncio.get_running_loop()
        next_read = loop.time()
        while True:
            try:
                if loop.time() >= next_read:
                    next_read = loop.time() + AFTER_FAILURE_SECONDS
                    await self.read()
                    next_read = loop.time() + EVERY_SECONDS
                await self._cards.refresh()
            except Exception as error:  # prices go on as they are known, whatever is wrong with the upstream's list
                log.warning("prices_not_read", upstream=self._source, why=str(error)[:200] or type(error).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    async def read(self) -> int:
        """Read the upstream's list once; how many new versions it gave.

        Raises:
            aiohttp.ClientError, TimeoutError, ValueError: It could not be read; nothing was added.
        """
        async with asyncio.timeout(ROUND_SECONDS):
            document = await self._get("/models")
            at = await rate_cards.moment(self._db)
            cards = await asyncio.to_thread(price_sources.from_list, document, at, self._source)
            listed = {entry.get("id"): entry for entry in _entries(document)}
            cards = await self._with_endpoints(cards, listed)
        added = await rate_cards.add(self._db, cards)
        await self._cards.refresh()
        log.info("prices_read", upstream=self._source, listed=len(listed), priced=len(cards), added=added)
        return added

    async def _with_endpoints(self, cards: list[RateCard], listed: Mapping[Any, Mapping[str, Any]]) -> list[RateCard]:
        """The same cards at the dearest of each model's endpoints, where the upstream tells them apart.

        A model whose endpoints could not be read this time is left out: its card stays as it is.
        """
        if not cards or await self._endpoints(cards[0].model) is None:
            return cards
        places = asyncio.Semaphore(AT_ONCE)

        async def dearest(card: RateCard) -> RateCard | None:
            async with places:
                endpoints = await self._endpoints(card.model)
            if endpoints is None:
                return None
            return price_sources.listed_card(listed[card.model], endpoints, card.effective_from, card.source)

        made = await asyncio.gather(*(dearest(card) for card in cards))
        return [card for card in made if card is not None]

    async def _endpoints(self, model: str) -> list[Any] | None:
        try:
            document = await self._get(f"/models/{quote(model, safe='/:')}/endpoints")
        except _FAILURES:
            return None
        data: Any = cast("dict[str, Any]", document).get("data") if isinstance(document, dict) else None
        found: Any = cast("dict[str, Any]", data).get("endpoints") if isinstance(data, dict) else None
        return cast("list[Any]", found) if isinstance(found, list) else None

    async def _get(self, path: str) -> Any:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        async with self._http.get(
            self._base + path, headers=self._headers, timeout=timeout, allow_redirects=False
        ) as answer:
            if answer.status != 200:
                raise NoPriceError(f"GET {path} answered {answer.status}")
            body = bytearray()
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise NoPriceError(f"GET {path} answered more than {MOST_BYTES} bytes")
        return await asyncio.to_thread(json.loads, bytes(body))


def _entries(document: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in document["data"] if isinstance(entry, dict)]
