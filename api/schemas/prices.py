"""Prices of models, as the API speaks of them."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import Field

from api.schemas.fields import Answer, words
from models.domain.rate_card import RateCard


class PriceAnswer(Answer):
    """One version of a model's prices. Tokens are priced by the million."""

    model: str
    version: int
    effective_from: datetime
    source: str
    input: str = Field(description="A million prompt tokens.")
    output: str = Field(description="A million completion tokens.")
    cached_input: str | None = Field(description="A million prompt tokens read from the provider's cache.")
    cache_write: str | None = Field(description="A million prompt tokens written to it.")
    reasoning: str | None = Field(description="A million tokens of reasoning.")
    image: str = Field(description="One image, beside its tokens.")
    request: str = Field(description="The call itself.")
    input_nano: int
    output_nano: int
    cached_input_nano: int | None
    cache_write_nano: int | None
    reasoning_nano: int | None
    image_nano: int
    request_nano: int
    context_tokens: int | None
    max_output_tokens: int | None

    @classmethod
    def of(cls, card: RateCard) -> Self:
        """The answer for a card."""
        priced = ("input", "output", "cached_input", "cache_write", "reasoning", "image", "request")
        values = card.model_dump(exclude={"image_tokens"})
        texts = {name: words(values[name]) for name in priced}
        return cls.model_validate({**values, **{f"{name}_nano": values[name] for name in priced}, **texts})


class PricePage(Answer):
    """Prices in force, by the models' names."""

    items: list[PriceAnswer]
    next_cursor: str | None


class PriceHistory(Answer):
    """A model's versions, newest first; one whose moment has not come yet may be among them."""

    items: list[PriceAnswer]
