"""Dollars as others write them → integers that a hold can stand on."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.rate_card import RateCard
from models.services.price_sources import NoPriceError, from_list, from_package, listed_card, nano

AT = datetime(2026, 8, 1, tzinfo=UTC)
A_TOKEN = 10**15


def entry(model: str = "a/x", **pricing: Any) -> dict[str, Any]:
    return {"id": model, "context_length": 1000, "pricing": {"prompt": "0.000001", "completion": "0.000002", **pricing}}


def one(**pricing: Any) -> RateCard | None:
    cards = from_list({"data": [entry(**pricing)]}, AT, "a test")
    return cards[0] if cards else None


def sure(card: RateCard | None) -> RateCard:
    assert card is not None
    return card


def test_every_price_of_a_list_is_read() -> None:
    card = sure(one(
        request="0.003", image="0.0048", internal_reasoning="0.000004", input_cache_read="0.0000001",
        input_cache_write="0.00000125", web_search="0.01",
    ))  # fmt: skip
    assert (card.input, card.output) == (1_000_000_000, 2_000_000_000)
    assert (card.cached_input, card.cache_write, card.reasoning) == (100_000_000, 1_250_000_000, 4_000_000_000)
    assert (card.request, card.image) == (3_000_000, 4_800_000)
    assert (card.context_tokens, card.effective_from, card.source) == (1000, AT, "a test")


def test_nothing_is_lost_below_a_nano_dollar() -> None:
    assert nano("0.0000000000000001", A_TOKEN) == 1
    assert nano("0.00000000000000000001", A_TOKEN) == 1
    assert nano("1.5e-07", A_TOKEN) == 150_000_000
    assert nano("0", A_TOKEN) == 0


@given(st.decimals(min_value=0, max_value=1000, allow_nan=False, allow_infinity=False))
def test_a_price_is_never_rounded_down(dollars: Decimal) -> None:
    made = nano(str(dollars), A_TOKEN)
    assert made - 1 < dollars * A_TOKEN <= made


@pytest.mark.parametrize("written", ["-1", "NaN", "Infinity", "dear", "", None, True, 0.5, "1e9", [], "1e999999"])
def test_what_is_no_price_makes_no_card(written: Any) -> None:
    with pytest.raises(NoPriceError):
        nano(written, A_TOKEN)
    if written is not None:
        assert one(prompt=written) is None
        assert one(request=written) is None
    assert one(completion=written) is None


def test_zero_is_a_price_of_words_and_no_price_of_a_cache() -> None:
    card = sure(one(prompt="0", completion="0", input_cache_read="0", internal_reasoning="0"))
    assert (card.input, card.output, card.cached_input, card.reasoning) == (0, 0, None, None)


def test_the_dearest_endpoint_counts() -> None:
    endpoints = [
        {"pricing": {"prompt": "0.000003", "completion": "0.000001", "input_cache_read": "0.0000005"}},
        {"pricing": {"prompt": "0.000002", "completion": "0.000009"}},
    ]
    card = sure(listed_card(entry(), endpoints, AT, "a test"))
    assert (card.input, card.output) == (3_000_000_000, 9_000_000_000)
    # Two endpoints do not price the cache apart: there it costs what the prompt costs.
    assert card.cached_input == 2_000_000_000


def test_the_longest_endpoint_counts_and_an_unknown_length_is_no_bound() -> None:
    prices = entry()["pricing"]
    known = [{"pricing": prices, "context_length": length, "max_completion_tokens": 100} for length in (500, 3000)]
    card = sure(listed_card({**entry(), "top_provider": {"max_completion_tokens": 7}}, known, AT, "a test"))
    assert (card.context_tokens, card.max_output_tokens) == (3000, 100)
    card = sure(listed_card(entry(), [*known, {"pricing": prices}], AT, "a test"))
    assert (card.context_tokens, card.max_output_tokens) == (None, None)


def test_the_dearest_tier_counts() -> None:
    card = sure(one(overrides=[{"min_prompt_tokens": 200_000, "prompt": "0.000004"}]))
    assert (card.input, card.output) == (4_000_000_000, 2_000_000_000)


def test_endpoints_without_a_price_make_no_card() -> None:
    assert listed_card(entry(), [{"pricing": {"prompt": "-1", "completion": "0"}}], AT, "a test") is None
    assert listed_card(entry(), [{}], AT, "a test") is None


def test_a_list_of_another_shape_is_refused_and_odd_entries_are_left_out() -> None:
    for document in ([], {}, {"data": {}}, None, "x"):
        with pytest.raises(NoPriceError):
            from_list(document, AT, "a test")
    odd: list[Any] = [
        None, 1, {}, {"id": "a/x"}, {"id": "", "pricing": entry()["pricing"]}, {"id": 5, "pricing": entry()["pricing"]},
        {**entry("a/image"), "architecture": {"output_modalities": ["image"]}}, entry("a/good"),
    ]  # fmt: skip
    assert [card.model for card in from_list({"data": odd}, AT, "a test")] == ["a/good"]


def test_the_package_knows_names_as_requests_write_them() -> None:
    cards = {card.model: card for card in from_package(AT)}
    assert {"openai/gpt-4o", "gpt-4o", "gpt-4o-2024-08-06", "mistral-large-latest"} <= set(cards)
    assert cards["gpt-4o"].input == 2_500_000_000
    # What has no price for words said is no model to chat with.
    assert "text-embedding-3-small" not in cards
    assert "whisper-1" not in cards
    # A long prompt's dearer tier is what a hold must suffice for.
    assert cards["claude-sonnet-4-5"].output == 22_500_000_000
