"""What a run costs, from the policy's prices. Integer nano-dollars, rounded up in favour of the bill."""

import math

from models.domain.money import NanoUsd
from models.domain.policy import Prices


def worst_case(prices: Prices, wall_seconds: int) -> NanoUsd:
    """The most that one attempt can cost which may run for `wall_seconds`: what is held before it starts."""
    if wall_seconds < 0:
        raise ValueError(f"a run cannot last {wall_seconds} seconds")
    return NanoUsd(max(prices.minimum_nano_usd, prices.sandbox_second_nano_usd * wall_seconds))


def to_hold(prices: Prices, wall_seconds: int, for_models: int) -> NanoUsd:
    """The most that a work item can cost: its sandbox's time and its grant for model calls."""
    return NanoUsd(worst_case(prices, wall_seconds) + for_models)


def actual(prices: Prices, ran_seconds: float, wall_seconds: int) -> NanoUsd:
    """What an attempt cost whose sandbox lived for `ran_seconds`. One that never started is free.

    INVARIANT: never more than `worst_case(prices, wall_seconds)`. The moments that it takes us to end a run
    at its limit are ours, so the bill stops at the limit. Time may come as a float; money never is one.
    """
    if not ran_seconds >= 0 or math.isinf(ran_seconds):  # also refuses NaN
        raise ValueError(f"a run cannot last {ran_seconds} seconds")
    return worst_case(prices, min(math.ceil(ran_seconds), wall_seconds))
