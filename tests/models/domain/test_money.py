import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.money import MAX_NANO_USD, format_usd, parse_usd


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("12.34 USD", 12_340_000_000),
        ("$1,200", 1_200_000_000_000),
        ("0.000000001", 1),
        ("usd 7", 7_000_000_000),
        (" 0 ", 0),
        ("9000000000", MAX_NANO_USD),
    ],
)
def test_amounts_as_people_write_them(text: str, nano: int):
    assert parse_usd(text) == nano


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "1.0000000001",
        "1e3",
        "12,34",
        "1.2.3",
        "NaN",
        "٣",
        "9000000000.01",
        "99999999999",
        "1 EUR",
        "1\x00",
    ],
)
def test_what_is_no_amount_is_refused(text: str):
    with pytest.raises(ValueError):
        parse_usd(text)


@given(st.integers(0, MAX_NANO_USD))
def test_writing_and_reading_loses_nothing(amount: int):
    assert parse_usd(format_usd(amount)) == amount


def test_a_debt_is_written_with_its_sign():
    assert format_usd(-1_500_000_000) == "-1.50 USD"
