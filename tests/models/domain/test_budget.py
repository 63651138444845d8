from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.budget import BudgetWindow, window_end, window_key

TOKYO = timezone(timedelta(hours=9))


@pytest.mark.parametrize(
    ("now", "window", "key", "end"),
    [
        (datetime(2026, 11, 24, 23, 59, tzinfo=UTC), "day", "2026-11-24", datetime(2026, 11, 25, tzinfo=UTC)),
        (datetime(2026, 12, 31, 12, tzinfo=UTC), "month", "2026-12", datetime(2027, 1, 1, tzinfo=UTC)),
        (datetime(2028, 2, 29, 1, tzinfo=UTC), "month", "2028-02", datetime(2028, 3, 1, tzinfo=UTC)),
        (datetime(2026, 12, 1, 3, tzinfo=TOKYO), "month", "2026-11", datetime(2026, 12, 1, tzinfo=UTC)),
        (datetime(2026, 1, 1, tzinfo=UTC), "lifetime", "lifetime", None),
    ],
)
def test_windows_are_those_of_utc(now: datetime, window: str, key: str, end: datetime | None):
    assert window_key(now, BudgetWindow(window)) == key
    assert window_end(now, BudgetWindow(window)) == end


def test_a_moment_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        window_key(datetime(2026, 1, 1), BudgetWindow.DAY)  # noqa: DTZ001 that is the case


MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(MOMENTS, st.sampled_from([BudgetWindow.DAY, BudgetWindow.MONTH]))
def test_the_end_is_the_first_moment_of_another_window(now: datetime, window: BudgetWindow):
    end = window_end(now, window)
    assert end is not None
    assert end > now
    assert window_key(end, window) != window_key(now, window)
    assert window_key(end - timedelta(microseconds=1), window) == window_key(now, window)
