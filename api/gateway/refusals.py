"""The gateway's own refusals: problem documents (RFC 9457) that clients of OpenAI's API can show as well.

They are told from the upstream's by their media type and by the header `x-awgp-refused`; an upstream's error is never
dressed up as ours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from models.domain.errors import AwgpError, DependencyAway, Forbidden, InvalidInput, Unauthenticated
from models.domain.llm import Asked, Bound
from models.domain.money import format_usd
from models.domain.rate_card import RateCard
from models.rules import llm_cost

TYPE_BASE = "https://awgp.example.com/problems/"
AWAY_RETRY_SECONDS = 5
MOST_MODELS_NAMED = 3

Header = tuple[bytes, bytes]


class BudgetShort(AwgpError):  # noqa: N818 - named for the case, as all domain errors are
    """What is left of the work item's grant does not carry this call's worst case."""

    type, title, status = "llm-budget-short", "Not enough is left for this call", 402


class ModelUnpriced(AwgpError):  # noqa: N818
    """Nobody knows what a call of this model costs, so nothing can be held for it."""

    type, title, status = "llm-model-unpriced", "This model has no price", 402


class TooFast(AwgpError):  # noqa: N818
    """The work item's calls or tokens of this minute are used up."""

    type, title, status = "llm-too-fast", "Too many calls or tokens in this minute", 429


class UpstreamAway(AwgpError):  # noqa: N818
    """The upstream cannot be reached, or broke off before it had answered."""

    type, title, status = "llm-upstream-away", "The model's upstream did not answer", 502


class NotHere(AwgpError):  # noqa: N818
    """The gateway has no such route."""

    type, title, status = "not-found", "Not found", 404


class TooLarge(AwgpError):  # noqa: N818
    """The body is larger than the gateway takes."""

    type, title, status = "too-large", "Request body too large", 413


_OPENAI_TYPES: tuple[tuple[type[AwgpError], str], ...] = (
    (BudgetShort, "insufficient_quota"),
    (TooFast, "rate_limit_exceeded"),
    (Unauthenticated, "authentication_error"),
    (Forbidden, "permission_error"),
    (InvalidInput, "invalid_request_error"),
    (DependencyAway, "service_unavailable"),
)
"""What clients of OpenAI's API call such an error."""


def render(error: AwgpError) -> tuple[int, list[Header], bytes]:
    """Status, headers and body."""
    code = str(error.extra.get("code") or error.type)
    headers: list[Header] = [(b"content-type", b"application/problem+json"), (b"x-awgp-refused", code.encode())]
    if isinstance(error, TooFast):
        headers.append((b"retry-after", str(error.extra["reset_seconds"]).encode()))
    elif isinstance(error, DependencyAway):
        headers.append((b"retry-after", str(AWAY_RETRY_SECONDS).encode()))
    elif isinstance(error, UpstreamAway) and code != "upstream_unreachable":
        # Charged, and perhaps done: OpenAI's clients would send it twice more unasked, and pay each time.
        headers.append((b"x-should-retry", b"false"))
    elif isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b'Bearer realm="awgp"'))
    kind = next((name for of, name in _OPENAI_TYPES if isinstance(error, of)), "api_error")
    errors = error.extra.get("errors")
    param = cast("list[dict[str, str]]", errors)[0]["where"] if errors else None
    document = {
        **error.extra,
        "type": TYPE_BASE + error.type,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "error": {"message": error.detail, "type": kind, "code": code, "param": param},
    }
    return error.status, headers, json.dumps(document, default=str).encode()


def unpriced(model: str) -> ModelUnpriced:
    """For a model without a card."""
    return ModelUnpriced(
        f"there is no price of the model {model[:200]!r}, so no call of it is let through", model=model
    )


def not_allowed(model: str, patterns: Sequence[Sequence[str]]) -> Forbidden:
    """For a model outside of what the policy or the assistant allows."""
    named = [", ".join(some) for some in patterns if some and tuple(some) != ("*",)]
    words = f"the model {model[:200]!r} is not among those allowed here: {' and '.join(named)}"
    return Forbidden(words, code="model", model=model)


def short(numbers: Sequence[int], asked: Asked, bound: Bound, cap: int, cheaper: Sequence[RateCard]) -> BudgetShort:
    """For a call whose worst case is more than what is left; says what would fit.

    Args:
        numbers: limit, charged, held.
        asked: The request.
        bound: Its worst case by the dearest card that applies.
        cap: The output cap that it had, or the least that the gateway would put in.
        cheaper: Cards of other models that are allowed here, the cheapest first.
    """
    limit, charged, held = numbers
    needed, left = llm_cost.worst_case(bound, cap), max(limit - charged - held, 0)
    fits: dict[str, Any] = {}
    words: list[str] = []
    tokens = llm_cost.cap_for(bound, left)
    if tokens >= 1 and tokens < cap:
        fits["max_tokens"] = tokens
        words.append(f"with max_tokens ≤ {tokens}")
    models = [card.model for card in cheaper if _carries(card, asked, cap, left)][:MOST_MODELS_NAMED]
    if models:
        fits["models"] = models
        words.append(f"with the model {' or '.join(models)}")
    detail = (
        f"this call may cost {format_usd(needed)}; {format_usd(left)} of the work item's {format_usd(limit)} for models"
        f" is free ({format_usd(charged)} spent, {format_usd(held)} held by calls under way). "
        + (f"It would fit {', or '.join(words)}" if words else "Nothing smaller of this kind would fit")
    )
    amounts = {"limit": limit, "spent": charged, "held": held, "needed": needed, "left": left}
    return BudgetShort(
        detail,
        code="budget_short",
        scope="work_item",
        unit="nano_usd",
        **{name: str(amount) for name, amount in amounts.items()},
        reset=None,
        fits=fits,
    )


def _carries(card: RateCard, asked: Asked, cap: int, left: int) -> bool:
    try:
        return llm_cost.worst_case(llm_cost.bound(card, asked), cap) <= left
    except InvalidInput:
        return False


def too_fast(what: str, numbers: Sequence[int], needed: int) -> TooFast:
    """For a minute that is used up. `numbers`: limit, used, seconds until the next minute."""
    limit, used, reset = numbers
    detail = f"{used:,} of the work item's {limit:,} {what} a minute are used, and {needed:,} are needed"
    if needed > limit:
        detail += "; no minute has so many: ask for less at once (max_tokens, a shorter prompt)"
    else:
        detail += f"; the next minute begins in {reset} s"
    return TooFast(
        detail,
        code="rpm" if what == "calls" else "tpm",
        scope="work_item",
        unit=what,
        limit=limit,
        spent=used,
        held=0,
        needed=needed,
        reset_seconds=reset,
    )
