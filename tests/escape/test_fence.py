"""Each attack on the fence fails, and succeeds where the defences that it names are off."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.escape import suite
from tests.escape.fence_attempts import ATTEMPTS
from tests.escape.table import Report

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


@pytest.mark.parametrize("name", [attempt.name for attempt in ATTEMPTS])
def test_attempt(fenced: dict[str, Report], name: str) -> None:
    assert not fenced[name].fault


def test_every_attempt_has_a_name_of_its_own_and_a_control_or_the_reason_why_not() -> None:
    assert max(Counter(attempt.name for attempt in suite.ATTEMPTS).values()) == 1
    assert all(bool(attempt.off) != bool(attempt.no_control) for attempt in suite.ATTEMPTS)
