"""Prices as the gateway looks them up: the cards in force, and which of them are cheap."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from models.domain.rate_card import MILLION, RateCard
from models.services.rate_cards import RateCards

REFRESH_SECONDS = 15.0
MOST_CHEAP = 40
_PRICES = ("input", "output", "cached_input", "cache_write", "reasoning", "image", "request")

log = structlog.get_logger("price_book")

Patterns = tuple[tuple[str, ...], ...]


class PriceBook:
    """The cards, read anew now and then.

    Attributes:
        ready: Prices have been read at least once.
    """

    def __init__(self, cards: RateCards) -> None:
        self._cards = cards
        self._prices: dict[tuple[str, int], str] = {}
        self._by_price: list[RateCard] = []
        self._cheap: dict[Patterns, list[RateCard]] = {}
        self.ready = False

    async def refresh(self) -> None:
        """Read what is new."""
        if await self._cards.refresh() or not self.ready:
            # Thousands of cards are made of their rows here: aside, so that no call waits for it.
            by_price = await asyncio.to_thread(lambda: sorted(self.allowed(()), key=_dearness))
            self._prices, self._cheap, self._by_price = {}, {}, by_price
        self.ready = True

    async def run(self, stop: asyncio.Event) -> None:
        """Refresh until told to stop."""
        while not stop.is_set():
            try:
                await self.refresh()
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                log.warning("prices_not_read", why=str(error)[:200])
            try:
                async with asyncio.timeout(REFRESH_SECONDS if self.ready else 1.0):
                    await stop.wait()
            except TimeoutError:
                continue

    def card(self, model: str) -> RateCard | None:
        """In force now; None: the model has no price."""
        return self._cards.get(model)

    def prices(self, card: RateCard) -> str:
        """Its unit prices as JSON text, for the ledger."""
        key = (card.model, card.version)
        found = self._prices.get(key)
        if found is None:
            named = {name: getattr(card, name) for name in _PRICES}
            named["source"] = card.source
            found = self._prices[key] = json.dumps(named, separators=(",", ":"))
        return found

    def allowed(self, patterns: Patterns) -> list[RateCard]:
        """All that the patterns let through, by name."""
        cards = (self._cards.get(model) for model in self._cards.models() if allows(patterns, model))
        return [card for card in cards if card is not None]

    def cheap(self, patterns: Patterns) -> list[RateCard]:
        """The cheapest that the patterns let through, the cheapest first. There are thousands: kept once found."""
        found = self._cheap.get(patterns)
        if found is None:
            fitting = (card for card in self._by_price if allows(patterns, card.model))
            found = self._cheap[patterns] = [card for card, _ in zip(fitting, range(MOST_CHEAP), strict=False)]
        return found


def allows(patterns: Patterns, model: str) -> bool:
    """Whether a model fits one pattern of each group; an empty group lets all through."""
    return all(any(_pattern(one).fullmatch(model) for one in group) for group in patterns if group)


@lru_cache(maxsize=4096)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in text.split("*")), re.DOTALL)


def _dearness(card: RateCard) -> tuple[int, str]:
    return card.dearest_input * 3 + card.dearest_output + card.request * MILLION, card.model


def listed(cards: Sequence[RateCard]) -> dict[str, Any]:
    """As `GET /models` answers them: OpenAI's format, with OpenRouter's way of telling prices."""
    return {"object": "list", "data": [described(card) for card in cards]}


def described(card: RateCard) -> dict[str, Any]:
    """One of them."""
    prices = {
        "prompt": (card.input, MILLION),
        "completion": (card.output, MILLION),
        "input_cache_read": (card.cached_input, MILLION),
        "input_cache_write": (card.cache_write, MILLION),
        "internal_reasoning": (card.reasoning, MILLION),
        "image": (card.image, 1),
        "request": (card.request, 1),
    }
    return {
        "id": card.model,
        "object": "model",
        "created": int(card.effective_from.timestamp()),
        "owned_by": card.model.partition("/")[0] if "/" in card.model else "upstream",
        "context_length": card.context_tokens,
        "top_provider": {"max_completion_tokens": card.max_output_tokens},
        "pricing": {name: _dollars(nano, of) for name, (nano, of) in prices.items() if nano is not None},
        "awgp": {"card_version": card.version, "source": card.source},
    }


def _dollars(nano: int, of: int) -> str:
    amount = Decimal(nano) / (Decimal(of) * 10**9)
    return f"{amount.normalize():f}"
