import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.money import NanoUsd
from models.domain.policy import Prices
from models.rules.cost import actual, worst_case

PRICES = st.builds(
    Prices,
    sandbox_second_nano_usd=st.integers(0, 10**12).map(NanoUsd),
    minimum_nano_usd=st.integers(0, 10**12).map(NanoUsd),
)
LIMITS = st.integers(0, 30 * 86_400)
TABLE = Prices(sandbox_second_nano_usd=NanoUsd(20_000), minimum_nano_usd=NanoUsd(100_000))


@pytest.mark.parametrize(
    ("ran", "cost"),
    [
        (0, 100_000),
        (4.2, 100_000),
        (5.0, 100_000),
        (5.000001, 120_000),
        (899.1, 18_000_000),
        (903.5, 18_000_000),
    ],
)
def test_each_begun_second_costs_up_to_the_limit(ran: float, cost: int):
    assert actual(TABLE, ran, 900) == cost


@given(PRICES, st.floats(0, 1e9), LIMITS)
def test_a_run_never_costs_more_than_was_held(prices: Prices, ran: float, limit: int):
    cost = actual(prices, ran, limit)
    assert type(cost) is int
    assert 0 <= cost <= worst_case(prices, limit) < 2**63


@given(PRICES, LIMITS, LIMITS)
def test_longer_never_costs_less(prices: Prices, one: int, other: int):
    short, long = sorted((one, other))
    assert worst_case(prices, short) <= worst_case(prices, long)
    assert actual(prices, short, long) <= actual(prices, long, long)


@pytest.mark.parametrize("ran", [-1, -0.5, float("nan"), float("inf")])
def test_impossible_times_are_refused(ran: float):
    with pytest.raises(ValueError):
        actual(TABLE, ran, 60)
