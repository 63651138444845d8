"""What a model call can cost at most, and what it cost. Integer nano-dollars, rounded up in favour of the bill.

No tokenizer: a token of text is at least one byte of UTF-8, and JSON never writes text in fewer bytes than it has. So
a request has no more prompt tokens than its body has bytes, beside its images and what the provider wraps around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from math import ceil
from typing import Any, cast

from models.domain.errors import InvalidInput
from models.domain.llm import Asked, Bound, Usage
from models.domain.money import NANO_PER_USD, NanoUsd
from models.domain.rate_card import MILLION, RateCard

WRAPPING_TOKENS = 1024
"""What a provider may add of its own: roles, separators, the words that introduce tools."""
CAP_WHERE_NOBODY_SAYS = 4096
"""Tokens of a completion, where neither the request nor the card names a limit."""
LEAST_CAP = 16
"""A cap of our own below this helps nobody: the call is refused instead."""
CAP_FIELDS = ("max_completion_tokens", "max_tokens")
MOST = 10**12
"""Of any count in a request or in a usage: larger numbers are no counts."""
COSTS_MORE = {
    "plugins": "plugins are paid beside the tokens",
    "web_search_options": "searching is paid beside the tokens",
    "audio": "audio is paid by prices of its own",
}
"""Fields of a request whose cost no rate card names."""
_READ = frozenset(
    {"model", "models", "messages", "n", "stream", "stream_options", "prediction", "tools", "service_tier"}
    | {*CAP_FIELDS, *COSTS_MORE}
)


def read_request(body: Mapping[str, Any], size: int) -> Asked:
    """What a chat completion's request may make the upstream do.

    Args:
        body: The request.
        size: Bytes of its JSON text.

    Raises:
        InvalidInput: A value that its price depends on is none; `errors` says where.
    """
    model = body.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= 256:
        raise _wrong("model", "must name a model")
    _refuse_the_unpriced(body)
    others: Any = body.get("models") or []
    if not isinstance(others, list) or not all(isinstance(one, str) for one in cast("list[Any]", others)):
        raise _wrong("models", "must be a list of names")
    messages = body.get("messages")
    images, hidden, boundless = _parts(cast("list[Any]", messages)) if isinstance(messages, list) else (0, 0, False)
    stream = body.get("stream") is True
    options = body.get("stream_options")
    return Asked(
        models=(model, *cast("list[str]", others)),
        prompt_bytes=size - hidden,
        images=images,
        boundless=boundless,
        choices=_count(body, "n") or 1,
        cap=max((cap for field in CAP_FIELDS if (cap := _count(body, field)) is not None), default=None),
        predicted=len(str(body["prediction"])) * 4 if body.get("prediction") else 0,
        stream=stream,
        wants_usage=isinstance(options, dict) and cast("dict[str, Any]", options).get("include_usage") is True,
    )


def _refuse_the_unpriced(body: Mapping[str, Any]) -> None:
    for field in body:
        if field not in _READ and field.casefold() in _READ:
            # Some upstreams read names in any case: they would take this one, and it was not held for.
            raise _wrong(field[:64], f"is written {field.casefold()}")
    for field, why in COSTS_MORE.items():
        if body.get(field):
            raise _wrong(field, f"cannot be held for: {why}")
    if body.get("service_tier") not in (None, "auto", "default", "flex"):
        raise _wrong("service_tier", "cannot be held for: no rate card names its price")
    tools = body.get("tools")
    for index, tool in enumerate(cast("list[Any]", tools) if isinstance(tools, list) else ()):
        kind = cast("dict[str, Any]", tool).get("type") if isinstance(tool, dict) else None
        if kind not in ("function", "custom"):
            raise _wrong(f"tools[{index}].type", "cannot be held for: a tool of the provider's own is paid beside it")


def _parts(messages: list[Any]) -> tuple[int, int, bool]:
    """Images, bytes of the body that are image data and no text, and whether anything is boundless."""
    images = hidden = 0
    boundless = False
    for message in messages:
        content: Any = cast("dict[str, Any]", message).get("content") if isinstance(message, dict) else None
        if not isinstance(content, list):
            continue
        for part in cast("list[Any]", content):
            kind = cast("dict[str, Any]", part).get("type") if isinstance(part, dict) else "text"
            if kind == "image_url":
                images += 1
                hidden += _data_bytes(cast("dict[str, Any]", part).get("image_url"))
            elif kind == "input_audio":
                raise _wrong("messages", f"cannot be held for: {COSTS_MORE['audio']}")
            elif kind not in ("text", "refusal"):
                boundless = True
    return images, hidden, boundless


def _data_bytes(image: Any) -> int:
    url = cast("dict[str, Any]", image).get("url") if isinstance(image, dict) else image
    # Base64 is written in JSON as it is, so that its characters are the body's bytes. Other data may be read as text.
    return len(url) if isinstance(url, str) and url.startswith("data:image/") and url.isascii() else 0


def _count(body: Mapping[str, Any], field: str) -> int | None:
    value = body.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        raise _wrong(field, "must be a whole number from 1 on")
    return value


def _wrong(where: str, what: str) -> InvalidInput:
    return InvalidInput(f"{where} {what}", errors=[{"where": where, "what": what}])


def bound(card: RateCard, asked: Asked) -> Bound:
    """The worst case by one card."""
    context = card.context_tokens
    prompt = asked.prompt_bytes + asked.images * card.image_tokens + WRAPPING_TOKENS
    if asked.boundless:
        if context is None:
            raise _wrong("messages", f"cannot be held for: it is not known how long a prompt of {card.model} can be")
        prompt = context
    elif context is not None:
        prompt = min(prompt, context)
    fixed = (
        prompt * card.dearest_input
        + (asked.images * card.image + card.request) * MILLION
        + asked.predicted * card.dearest_output
    )
    most = card.max_output_tokens or context or CAP_WHERE_NOBODY_SAYS
    return Bound(prompt, fixed, asked.choices * card.dearest_output, asked.choices, most)


def worst_case(bound: Bound, cap: int) -> NanoUsd:
    """The most that the call can cost if no completion is longer than `cap` tokens."""
    return NanoUsd(-(-(bound.fixed + cap * bound.per_cap) // MILLION))


def cap_for(bound: Bound, amount: int) -> int:
    """The largest cap of which the worst case is at most `amount`; 0: not even the prompt fits."""
    left = amount * MILLION - bound.fixed
    if left < 0:
        return 0
    return bound.most if bound.per_cap == 0 else min(bound.most, left // bound.per_cap)


def actual(card: RateCard, usage: Usage, images: int = 0) -> NanoUsd:
    """What a call cost: as the upstream says, else its tokens by the card that was in force when it began.

    INVARIANT: cached and written tokens are part of the prompt's, reasoning of the completion's: priced once.
    """
    if usage.cost_nano is not None:
        return NanoUsd(usage.cost_nano)
    price_cached = card.input if card.cached_input is None else card.cached_input
    price_write = card.input if card.cache_write is None else card.cache_write
    price_reasoning = card.output if card.reasoning is None else card.reasoning
    cached = min(usage.cached, usage.prompt)
    written = min(usage.cache_write, usage.prompt - cached)
    reasoning = min(usage.reasoning, usage.completion)
    total = (
        (usage.prompt - cached - written) * card.input
        + cached * price_cached
        + written * price_write
        + (usage.completion - reasoning) * card.output
        + reasoning * price_reasoning
        + (images * card.image + card.request) * MILLION
    )
    return NanoUsd(-(-total // MILLION))


def read_usage(given: Any) -> Usage | None:
    """The usage that an upstream told; None: there is none, or it cannot be read."""
    if not isinstance(given, dict):
        return None
    told = cast("dict[str, Any]", given)
    prompt, completion = _tokens(told, "prompt_tokens"), _tokens(told, "completion_tokens")
    if prompt is None or completion is None:
        return None
    total = _tokens(told, "total_tokens")
    if total is not None and total > prompt + completion:
        completion = total - prompt  # some tell reasoning beside the completion; in the total it always is
    of_prompt = cast("dict[str, Any]", told.get("prompt_tokens_details") or {})
    of_completion = cast("dict[str, Any]", told.get("completion_tokens_details") or {})
    return Usage(
        prompt=prompt,
        completion=completion,
        cached=_tokens(of_prompt, "cached_tokens") or 0,
        cache_write=_tokens(of_prompt, "cache_write_tokens") or _tokens(told, "cache_creation_input_tokens") or 0,
        reasoning=_tokens(of_completion, "reasoning_tokens") or 0,
        cost_nano=_cost(told),
    )


def _tokens(told: Any, field: str) -> int | None:
    value: Any = cast("dict[str, Any]", told).get(field) if isinstance(told, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST else None


def _cost(told: dict[str, Any]) -> int | None:
    cost = _dollars(told.get("cost"))
    if cost is None or told.get("is_byok") is not True:
        return cost
    # With the company's own provider key, `cost` is the router's fee alone.
    details: Any = told.get("cost_details")
    upstream = _dollars(
        cast("dict[str, Any]", details).get("upstream_inference_cost") if isinstance(details, dict) else 0
    )
    return None if upstream is None else cost + upstream


def _dollars(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return ceil(amount * NANO_PER_USD) if amount.is_finite() and 0 <= amount <= MILLION else None
