"""Money as integer nano-dollars: 1 USD is 1 000 000 000 nano-USD, and a float is never one."""

import re
from typing import Annotated, NewType

from pydantic import Field

NanoUsd = NewType("NanoUsd", int)

NANO_PER_USD = 1_000_000_000
PPM = 1_000_000
"""Shares are parts per million, so that half of a budget is an integer too."""

# INVARIANT: every amount fits PostgreSQL's bigint and CEL's int (both 64 bit, signed).
MAX_NANO_USD = NanoUsd(9_000_000_000 * NANO_PER_USD)
ZERO = NanoUsd(0)

Amount = Annotated[NanoUsd, Field(ge=0, le=MAX_NANO_USD, strict=True)]
"""A field type: an amount that is not negative and fits 64 bits."""

_AMOUNT = re.compile(
    r"\s*(?:USD\s*|\$\s*)?(?P<whole>\d{1,10}|\d{1,3}(?:,\d{3}){1,3})(?:\.(?P<part>\d{1,9}))?\s*(?:USD)?\s*",
    re.ASCII | re.IGNORECASE,
)


def parse_usd(text: str) -> NanoUsd:
    """Read an amount as people write it: ``12.34 USD``, ``$1,200``, ``0.000000001``.

    Raises:
        ValueError: it is no amount, is negative, is finer than a nano-dollar, or is too large.
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text[:60]!r} is not an amount in USD; write it like '12.34 USD' (at most 9 decimals)"
        )
    whole = int(match["whole"].replace(",", ""))
    part = int((match["part"] or "").ljust(9, "0"))
    amount = whole * NANO_PER_USD + part
    if amount > MAX_NANO_USD:
        raise ValueError(f"{text[:60]!r} is more than {format_usd(MAX_NANO_USD)}")
    return NanoUsd(amount)


def format_usd(amount: int) -> str:
    """Write an amount for people, exactly: two decimals, more only where they are not zero."""
    whole, part = divmod(abs(amount), NANO_PER_USD)
    decimals = f"{part:09d}".rstrip("0").ljust(2, "0")
    sign = "-" if amount < 0 else ""
    return f"{sign}{whole:,}.{decimals} USD"
