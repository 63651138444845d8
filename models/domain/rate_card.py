"""What a model costs: one version of its prices, in integers, as every hold and every charge quotes it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MILLION = 1_000_000

Price = Annotated[int, Field(ge=0, le=10**15)]
"""Nano-USD for one million tokens, or for one thing; at most a million dollars."""


class RateCard(BaseModel):
    """One version of a model's prices. A new price is a new version: a card never changes.

    Attributes:
        model: The name that a request asks for, as the upstream knows it.
        version: Counts from 1 a model.
        effective_from: From when on; in force is the newest version whose moment has come.
        source: Where the prices come from, with its own version or date.
        input: Nano-USD for a million prompt tokens that no cache served.
        output: Nano-USD for a million completion tokens.
        cached_input: For a million prompt tokens read from the provider's cache; None: as `input`.
        cache_write: For a million prompt tokens written to it; None: as `input`.
        reasoning: For a million completion tokens of reasoning; None: as `output`.
        image: Nano-USD for one image in the prompt, beside its tokens.
        request: Nano-USD for the call itself.
        image_tokens: The most tokens that one image may count as.
        context_tokens: The most tokens of prompt and completion together; None: not known.
        max_output_tokens: The most tokens of a completion; None: what the context leaves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1, max_length=256)
    version: int = Field(default=1, ge=1)
    effective_from: datetime
    source: str = Field(max_length=256)
    input: Price
    output: Price
    cached_input: Price | None = None
    cache_write: Price | None = None
    reasoning: Price | None = None
    image: Price = 0
    request: Price = 0
    image_tokens: int = Field(default=16_384, ge=0, le=10**7)
    context_tokens: int | None = Field(default=None, ge=1, le=10**9)
    max_output_tokens: int | None = Field(default=None, ge=1, le=10**9)

    @property
    def dearest_input(self) -> int:
        """Nano-USD for a million prompt tokens at their worst: it may be that each is written to the cache."""
        return max(self.input, self.cached_input or 0, self.cache_write or 0)

    @property
    def dearest_output(self) -> int:
        """Nano-USD for a million completion tokens at their worst: it may be that each is reasoning."""
        return max(self.output, self.reasoning or 0)
