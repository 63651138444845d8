from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.errors import InvalidInput
from models.domain.llm import Asked, Usage
from models.domain.rate_card import RateCard
from models.rules import llm_cost

NAMES = ("input", "output", "cached_input", "cache_write", "reasoning", "image", "request")


def card(**changes: Any) -> RateCard:
    values: dict[str, Any] = {
        "model": "a/b", "effective_from": datetime(2026, 1, 1, tzinfo=UTC), "source": "test",
        "input": 1_000_000, "output": 2_000_000,
    }  # fmt: skip
    return RateCard(**{**values, **changes})


def read(**fields: Any) -> Asked:
    body = {"model": "a/b", "messages": [{"role": "user", "content": "hi"}], **fields}
    return llm_cost.read_request(body, len(json.dumps(body)))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"cap": None, "choices": 1, "stream": False, "images": 0, "boundless": False}),
        ({"max_tokens": 5}, {"cap": 5}),
        ({"max_tokens": None, "max_completion_tokens": 7}, {"cap": 7}),
        ({"max_tokens": 9, "max_completion_tokens": 7}, {"cap": 9}),
        ({"n": 3}, {"choices": 3}),
        ({"n": None}, {"choices": 1}),
        ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True, "wants_usage": True}),
        ({"stream": "true"}, {"stream": False}),
        ({"models": ["c/d"]}, {"models": ("a/b", "c/d")}),
        ({"messages": [{"content": [{"type": "file", "file": {}}]}]}, {"boundless": True}),
        ({"messages": [{"content": [{"type": "text", "text": "x"}, "x"]}, 5]}, {"boundless": False}),
        ({"messages": [{"content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}]}, {"images": 1}),
        ({"tools": [{"type": "function"}], "service_tier": "flex"}, {}),
    ],
)
def test_what_a_request_may_make_it_do(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    asked = read(**fields)
    assert {name: getattr(asked, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"model": ""}, "model"),
        ({"model": "x" * 257}, "model"),
        ({"models": "c/d"}, "models"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"n": 10**13}, "n"),
        ({"plugins": [{"id": "web"}]}, "plugins"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"web_search_options": {"a": 1}}, "web_search_options"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"tools": [{"type": "function"}, {"type": "web_search"}]}, "tools[1].type"),
        ({"tools": ["x"]}, "tools[0].type"),
        ({"Max_Tokens": 100_000}, "Max_Tokens"),
        ({"ſtream": True}, "ſtream"),
        ({"PLUGINS": [{"id": "web"}]}, "PLUGINS"),
        ({"messages": [{"content": [{"type": "input_audio", "input_audio": {"data": "AA"}}]}]}, "messages"),
    ],
)
def test_what_no_price_can_be_made_of(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(**fields)
    assert refused.value.extra["errors"][0]["where"] == where


def test_an_images_data_is_no_text() -> None:
    url = "data:image/png;base64," + "A" * 100_000
    asked = read(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])
    assert asked.images == 1
    assert asked.prompt_bytes < 300
    assert llm_cost.bound(card(image_tokens=4000), asked).prompt_tokens < 6000


def test_data_that_is_no_image_may_be_read_as_text() -> None:
    url = "data:text/plain;base64," + "A" * 100_000
    asked = read(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])
    assert asked.prompt_bytes > 100_000


@pytest.mark.parametrize(
    ("changes", "asked", "cap", "expected"),
    [
        ({}, Asked(("a",), 1000), 0, 1024 + 1000),
        ({}, Asked(("a",), 1000), 100, 1024 + 1000 + 200),
        ({}, Asked(("a",), 1000, choices=3), 100, 1024 + 1000 + 600),
        ({"context_tokens": 500}, Asked(("a",), 1000), 0, 500),
        ({"context_tokens": 500}, Asked(("a",), 10, boundless=True), 0, 500),
        ({"cache_write": 3_000_000}, Asked(("a",), 1000), 0, 3 * 2024),
        ({"reasoning": 5_000_000}, Asked(("a",), 1000), 10, 2024 + 50),
        ({"image": 7, "image_tokens": 100, "request": 11}, Asked(("a",), 1000, images=2), 0, 2024 + 200 + 14 + 11),
        ({}, Asked(("a",), 1000, predicted=40), 0, 2024 + 80),
        ({"input": 1}, Asked(("a",), 1), 0, 1),
    ],
)
def test_the_worst_case(changes: dict[str, Any], asked: Asked, cap: int, expected: int) -> None:
    assert llm_cost.worst_case(llm_cost.bound(card(**changes), asked), cap) == expected


def test_a_file_by_its_address_needs_a_known_context() -> None:
    with pytest.raises(InvalidInput, match="not known how long"):
        llm_cost.bound(card(), Asked(("a",), 10, boundless=True))


@pytest.mark.parametrize(
    ("changes", "usage", "expected"),
    [
        ({}, Usage(10, 5), 20),
        ({"cached_input": 100_000}, Usage(100, 0, cached=50), 55),
        ({"cached_input": 100_000, "cache_write": 2_000_000}, Usage(100, 0, cached=50, cache_write=10), 65),
        ({}, Usage(10, 5, reasoning=5), 20),
        ({"reasoning": 4_000_000}, Usage(10, 5, reasoning=2), 10 + 6 + 8),
        ({"cached_input": 0}, Usage(10, 5, cached=999), 10),
        ({"reasoning": 4_000_000}, Usage(10, 5, reasoning=999), 10 + 20),
        ({"request": 3}, Usage(0, 0), 3),
        ({"input": 1}, Usage(1, 0), 1),
        ({}, Usage(10, 5, cost_nano=7), 7),
    ],
)
def test_what_a_call_cost(changes: dict[str, Any], usage: Usage, expected: int) -> None:
    assert llm_cost.actual(card(**changes), usage) == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (None, None),
        ([], None),
        ({}, None),
        ({"prompt_tokens": 1}, None),
        ({"prompt_tokens": -1, "completion_tokens": 1}, None),
        ({"prompt_tokens": "1", "completion_tokens": 1}, None),
        ({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}, Usage(1, 2)),
        ({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 9}, Usage(1, 8)),
        (
            {
                "prompt_tokens": 9, "completion_tokens": 8, "prompt_tokens_details": {"cached_tokens": 3},
                "completion_tokens_details": {"reasoning_tokens": 4},
            },
            Usage(9, 8, cached=3, reasoning=4),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 8, "prompt_tokens_details": None}, Usage(9, 8)),
        ({"prompt_tokens": 9, "completion_tokens": 8, "prompt_tokens_details": "x"}, Usage(9, 8)),
        ({"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.000000001}, Usage(1, 1, cost_nano=1)),
        ({"prompt_tokens": 1, "completion_tokens": 1, "cost": 1.5e-10}, Usage(1, 1, cost_nano=1)),
        ({"prompt_tokens": 1, "completion_tokens": 1, "cost": -1}, Usage(1, 1)),
        ({"prompt_tokens": 1, "completion_tokens": 1, "cost": float("nan")}, Usage(1, 1)),
        ({"prompt_tokens": 1, "completion_tokens": 1, "cost": "dear"}, Usage(1, 1)),
        (
            {
                "prompt_tokens": 1, "completion_tokens": 1, "cost": 0.001, "is_byok": True,
                "cost_details": {"upstream_inference_cost": 0.02},
            },
            Usage(1, 1, cost_nano=21_000_000),
        ),
    ],
)  # fmt: skip
def test_reading_what_an_upstream_tells(told: Any, expected: Usage | None) -> None:
    assert llm_cost.read_usage(told) == expected


PRICES = st.integers(0, 10**12)
CARDS = st.builds(
    lambda context, out, **prices: card(context_tokens=context, max_output_tokens=out, **prices),
    context=st.none() | st.integers(1, 10**6),
    out=st.none() | st.integers(1, 10**5),
    **dict.fromkeys(NAMES, PRICES),
)


@given(CARDS, st.integers(0, 10**6), st.integers(0, 3), st.integers(1, 4), st.integers(1, 10**5), st.data())
def test_no_call_within_its_bounds_costs_more_than_was_held(
    prices: RateCard, size: int, images: int, choices: int, cap: int, data: st.DataObject
) -> None:
    bound = llm_cost.bound(prices, Asked(("a/b",), size, images=images, choices=choices, cap=cap))
    prompt = data.draw(st.integers(0, bound.prompt_tokens))
    completion = data.draw(st.integers(0, cap * choices))
    usage = Usage(
        prompt, completion, data.draw(st.integers(0, prompt)), data.draw(st.integers(0, prompt)),
        data.draw(st.integers(0, completion)),
    )  # fmt: skip
    assert llm_cost.actual(prices, usage, images) <= llm_cost.worst_case(bound, cap)


@given(CARDS, st.integers(0, 10**6), st.integers(0, 10**13))
def test_the_cap_that_fits_fits_and_the_next_does_not(prices: RateCard, size: int, amount: int) -> None:
    bound = llm_cost.bound(prices, Asked(("a/b",), size))
    cap = llm_cost.cap_for(bound, amount)
    assert cap == 0 or llm_cost.worst_case(bound, cap) <= amount
    if cap < bound.most and bound.per_cap:
        assert llm_cost.worst_case(bound, cap + 1) > amount


@given(st.text(max_size=200), st.lists(st.text(max_size=50), max_size=3))
def test_a_body_has_at_least_as_many_bytes_as_its_text(content: str, others: list[str]) -> None:
    text = content + "".join(others)
    body = {"model": "a/b", "messages": [{"role": "user", "content": one} for one in (content, *others)]}
    for ascii_only in (True, False):
        raw = json.dumps(body, ensure_ascii=ascii_only, separators=(",", ":")).encode("utf-8", "surrogatepass")
        asked = llm_cost.read_request(body, len(raw))
        assert llm_cost.bound(card(), asked).prompt_tokens >= len(text.encode("utf-8", "surrogatepass"))
