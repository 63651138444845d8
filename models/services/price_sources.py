"""Rate cards out of what others publish: the `genai-prices` package, and lists in the format of OpenRouter's `/models`.

Dollars come in as decimal text and leave as integers, rounded up: a hold may be too high, never too low. Where a source
has several prices for the same thing (tiers, times of day, endpoints) the dearest is taken.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from math import ceil
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from models.domain.money import NANO_PER_USD
from models.domain.rate_card import MILLION, RateCard

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo

OPENROUTER = "openrouter"
PLAIN_PROVIDERS = (
    "openai", "anthropic", "google", "mistral", "x-ai", "deepseek", "moonshotai", "zai", "minimax", "perplexity",
    "cohere", "groq", "cerebras", "together", "fireworks",
)  # fmt: skip
"""Whose models are known by their plain names too, for an upstream that is the provider itself."""

_PRICES = ("input", "output", "cached_input", "cache_write", "reasoning", "image", "request")
_LIMITS = ("context_tokens", "max_output_tokens")
_A_TOKEN = MILLION * NANO_PER_USD
_LISTED = {
    "input": ("prompt", _A_TOKEN),
    "output": ("completion", _A_TOKEN),
    "cached_input": ("input_cache_read", _A_TOKEN),
    "cache_write": ("input_cache_write", _A_TOKEN),
    "reasoning": ("internal_reasoning", _A_TOKEN),
    "image": ("image", NANO_PER_USD),
    "request": ("request", NANO_PER_USD),
}
"""A card's price ← its name in a list, and what a dollar of it is there."""
_PACKAGED = {
    "input": (("input_mtok", NANO_PER_USD), ("input_image_mtok", NANO_PER_USD)),
    "output": (("output_mtok", NANO_PER_USD), ("output_citation_mtok", NANO_PER_USD)),
    "cached_input": (("cache_read_mtok", NANO_PER_USD),),
    "cache_write": (("cache_write_mtok", NANO_PER_USD), ("cache_write_1h_mtok", NANO_PER_USD)),
    "reasoning": (("output_reasoning_mtok", NANO_PER_USD),),
    "request": (("requests_kcount", NANO_PER_USD // 1000),),
}

Prices = dict[str, int]


class NoPriceError(ValueError):
    """What is written there is no price that a hold could be made of."""


def from_package(at: datetime) -> list[RateCard]:
    """Cards of the `genai-prices` package for OpenRouter's names, for `provider/model`, and for plain names.

    Importing it takes a third of a second: never on the way of a request.

    Args:
        at: The moment whose prices are wanted, by the database's clock.
    """
    from genai_prices.data import providers

    source = f"genai-prices {importlib.metadata.version('genai-prices')}"
    cards: dict[str, RateCard] = {}
    known = {provider.id: provider.models for provider in providers}
    for model in known.get(OPENROUTER, []):
        _take(cards, _packaged_card(model.id, model, at, source))
    listed = set(cards)
    for provider in PLAIN_PROVIDERS:
        for model in known.get(provider, []):
            for name in _names(model):
                # A plain name may be several providers' own: whoever serves it, the hold suffices.
                _take(cards, _packaged_card(name, model, at, source))
                if f"{provider}/{name}" not in listed:
                    _take(cards, _packaged_card(f"{provider}/{name}", model, at, source))
    return list(cards.values())


def from_list(document: Any, at: datetime, source: str) -> list[RateCard]:
    """Cards of a list in the format of OpenRouter's `/models`; what has no usable price is left out.

    Raises:
        NoPriceError: It is not such a list.
    """
    listed: Any = cast("dict[str, Any]", document).get("data") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise NoPriceError("a list of models has `data`, an array")
    cards: dict[str, RateCard] = {}
    for entry in cast("list[Any]", listed):
        if isinstance(entry, dict) and _speaks_text(cast("dict[str, Any]", entry)):
            _take(cards, listed_card(cast("dict[str, Any]", entry), [], at, source))
    return list(cards.values())


def listed_card(entry: Mapping[str, Any], endpoints: Iterable[Any], at: datetime, source: str) -> RateCard | None:
    """The card of one entry of such a list; None when it has no usable price.

    Args:
        entry: The model's entry; its price is the *lowest* of its endpoints.
        endpoints: Entries of `/models/<id>/endpoints`, each with a `pricing` of its own.
        at: From when on.
        source: Where it comes from.
    """
    served = [cast("Mapping[str, Any]", each) for each in endpoints if isinstance(each, Mapping)]
    try:
        prices = _dearest(_listed_prices(pricing) for pricing in _pricings(entry, served))
    except NoPriceError:
        return None
    top: Any = entry.get("top_provider")
    most = served or ([cast("Mapping[str, Any]", top)] if isinstance(top, Mapping) else [])
    return _card(
        entry.get("id"), prices, at, source,
        context_tokens=_longest([_count(each.get("context_length")) for each in (entry, *served)]),
        max_output_tokens=_longest([_count(each.get("max_completion_tokens")) for each in most]),
    )  # fmt: skip


def nano(dollars: object, unit: int) -> int:
    """A price in USD as nano-USD, times `unit / NANO_PER_USD`, rounded up.

    Raises:
        NoPriceError: It is no number, is negative (OpenRouter writes -1 where a price depends), or has no end.
    """
    if isinstance(dollars, bool) or not isinstance(dollars, str | int | Decimal):
        raise NoPriceError(f"{str(dollars)[:40]!r} is not decimal text")
    try:
        value = Decimal(dollars)
    except InvalidOperation as error:
        raise NoPriceError(f"{str(dollars)[:40]!r} is no number") from error
    if not value.is_finite() or value < 0 or value > MILLION:
        raise NoPriceError(f"{str(dollars)[:40]!r} is no price")
    return ceil(value * unit)


def _take(cards: dict[str, RateCard], card: RateCard | None) -> None:
    """Add a card; of two for the same name one is made, with the dearer of each price."""
    if card is None:
        return
    before = cards.get(card.model)
    if before is None:
        cards[card.model] = card
        return
    prices = _dearest(card_prices(each) for each in (before, card))
    limits = {name: _longest([getattr(before, name), getattr(card, name)]) for name in _LIMITS}
    cards[card.model] = before.model_copy(update=prices | limits)


def card_prices(card: RateCard) -> Prices:
    """The prices that a card has."""
    return {name: getattr(card, name) for name in _PRICES if getattr(card, name) is not None}


def _dearest(all_prices: Iterable[Prices]) -> Prices:
    """The highest of each; what one source does not price apart counts there as what it is a part of."""
    alternatives = list(all_prices)
    whole = {"cached_input": "input", "cache_write": "input", "reasoning": "output"}
    found: Prices = {}
    for name in _PRICES:
        if any(name in prices for prices in alternatives):
            found[name] = max(prices.get(name, prices.get(whole.get(name, ""), 0)) for prices in alternatives)
    return found


def _card(model: object, prices: Prices, at: datetime, source: str, **limits: int | None) -> RateCard | None:
    # Embeddings, speech and the like have no price for what is said: nothing that a chat could be held for.
    if "input" not in prices or "output" not in prices:
        return None
    try:
        return RateCard.model_validate({"model": model, "effective_from": at, "source": source, **prices, **limits})
    except ValidationError:
        return None


def _speaks_text(entry: Mapping[str, Any]) -> bool:
    architecture = entry.get("architecture")
    if not isinstance(architecture, dict):
        return True
    says = cast("dict[str, Any]", architecture).get("output_modalities")
    return not isinstance(says, list) or "text" in says


def _pricings(entry: Mapping[str, Any], endpoints: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """All price tables of a model: its own, its endpoints', and those that begin at a longer prompt."""
    for holder in (entry, *endpoints):
        pricing: Any = holder.get("pricing")
        if not isinstance(pricing, dict):
            raise NoPriceError("no pricing")
        table = cast("dict[str, Any]", pricing)
        yield table
        for value in table.values():
            if isinstance(value, list):
                for tier in cast("list[Any]", value):
                    if isinstance(tier, dict):
                        yield {**table, **cast("dict[str, Any]", tier)}


def _listed_prices(pricing: Mapping[str, Any]) -> Prices:
    prices = {
        name: nano(pricing[theirs], unit) for name, (theirs, unit) in _LISTED.items() if pricing.get(theirs) is not None
    }
    said = prices.get("output")
    if said is not None and pricing.get("image_output") is not None:
        prices["output"] = max(said, nano(pricing["image_output"], _A_TOKEN))
    # Zero stands for "not priced apart" there: reading a cache for nothing is not what any of them offers.
    return {name: price for name, price in prices.items() if price or name in {"input", "output"}}


def _longest(lengths: Sequence[int | None]) -> int | None:
    """The longest; None when one of them is not known: a prompt's length is cut off at it when a call is held for."""
    known = [length for length in lengths if length is not None]
    return max(known) if known and len(known) == len(lengths) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _packaged_card(name: str, model: ModelInfo, at: datetime, source: str) -> RateCard | None:
    try:
        prices = _dearest(_packaged_prices(each) for each in _packaged_tables(model, at))
    except NoPriceError:
        return None
    return _card(name, prices, at, source, context_tokens=_count(model.context_window))


def _packaged_tables(model: ModelInfo, at: datetime) -> Iterator[Any]:
    """Price tables of a model that may hold at `at`: the newest dated one, and those of times of day.

    Not the variants, which are for requests that ask for a dearer tier of service: those are not let through.
    """
    from genai_prices.types import StartDateConstraint

    yield model.get_prices(at)
    for conditional in model.prices if isinstance(model.prices, list) else ():
        if conditional.constraint is not None and not isinstance(conditional.constraint, StartDateConstraint):
            yield conditional.prices


def _packaged_prices(table: Any) -> Prices:
    prices: Prices = {}
    for name, parts in _PACKAGED.items():
        found = [nano(dollars, unit) for part, unit in parts for dollars in _tiers(vars(table).get(part))]
        if found:
            prices[name] = max(found)
    if "input" in prices and vars(table).get("input_mtok") is None:
        raise NoPriceError("only images have a price")
    return prices


def _tiers(price: Any) -> list[Decimal]:
    if price is None:
        return []
    return [price] if isinstance(price, Decimal) else [price.base, *(tier.price for tier in price.tiers)]


def _names(model: ModelInfo) -> set[str]:
    """A model's id and the other names that the package knows it by, letter by letter."""
    from genai_prices.types import ClauseEquals, ClauseOr

    names = {model.id}
    waiting: list[object] = [model.match]
    while waiting:
        clause = waiting.pop()
        if isinstance(clause, ClauseEquals):
            names.add(clause.equals)
        elif isinstance(clause, ClauseOr):
            waiting += clause.or_
    return names
