"""Values of a model call: what it may use at most, and what it used."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple


class ChargeKind(StrEnum):
    """How a charge came about."""

    FINAL = "final"
    """From the usage that the upstream told."""
    ESTIMATED = "estimated"
    """The usage never came: what was held, or what was seen to be produced."""
    UNACCOUNTED = "unaccounted"
    """Redis was lost: what may have been spent without anybody knowing."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request may make the upstream do, at its worst.

    Attributes:
        models: The model asked for, and those that the upstream may take instead.
        prompt_bytes: No prompt has more tokens than this, but for its images and the provider's own wrapping.
        images: How many images it has.
        boundless: Something in it counts as any number of tokens (a file by its address): the context is the bound.
        choices: How many completions.
        cap: The most tokens of one completion, where the request says; None: it does not.
        predicted: Completion tokens beside them: a prediction that did not come true is paid.
        stream: Whether the answer streams.
        wants_usage: Whether the caller asked for the usage at the stream's end.
    """

    models: tuple[str, ...]
    prompt_bytes: int
    images: int = 0
    boundless: bool = False
    choices: int = 1
    cap: int | None = None
    predicted: int = 0
    stream: bool = False
    wants_usage: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens by class, as the upstream told them.

    Attributes:
        prompt: All prompt tokens; `cached` and `cache_write` are among them.
        completion: All completion tokens; `reasoning` is among them.
        cost_nano: What the upstream says that it costs; None: it does not say.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    cost_nano: int | None = None

    @property
    def total(self) -> int:
        """Tokens of both."""
        return self.prompt + self.completion

    def by_class(self) -> dict[str, Any]:
        """For the ledger."""
        return {
            "prompt": self.prompt,
            "completion": self.completion,
            "cached": self.cached,
            "cache_write": self.cache_write,
            "reasoning": self.reasoning,
        }


class Bound(NamedTuple):
    """The worst case of a request as a line over the output cap: `(fixed + cap × per_cap) / million` nano-USD."""

    prompt_tokens: int
    fixed: int
    per_cap: int
    choices: int
    most: int
