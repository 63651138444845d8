from __future__ import annotations

import pytest

from models.domain.policy import ActionRules, WhileWaiting
from models.rules.waiting import Waiting, WaitingStep, next_step

PAUSE, RESUME, SUSPEND = WaitingStep.PAUSE, WaitingStep.RESUME, WaitingStep.SUSPEND
PAUSED, SUSPENDED = Waiting.PAUSED, Waiting.SUSPENDED


@pytest.mark.parametrize(
    ("policy", "waiting", "waited", "again", "step"),
    [
        ("pause", None, 59.9, True, None),
        ("pause", None, 60.0, True, PAUSE),
        ("pause", None, 60.0, False, PAUSE),
        ("pause", PAUSED, 3600.0, True, None),
        ("pause", PAUSED, None, True, RESUME),
        ("pause", None, None, True, None),
        ("suspend", None, 59.9, True, None),
        ("suspend", None, 60.0, True, SUSPEND),
        ("suspend", None, 60.0, False, PAUSE),
        ("suspend", SUSPENDED, 3600.0, True, None),
        # Told to end, and answered meanwhile: it ends, and goes on in its next attempt.
        ("suspend", SUSPENDED, None, True, None),
        ("suspend", PAUSED, None, True, RESUME),
        ("stay", None, 10**6, True, None),
        ("stay", PAUSED, None, True, RESUME),
    ],
)
def test_the_next_step(
    policy: str, waiting: Waiting | None, waited: float | None, again: bool, step: WaitingStep | None
) -> None:
    rules = ActionRules(while_waiting=WhileWaiting(policy), grace_seconds=60)
    assert next_step(rules, waiting, waited, may_start_again=again) is step
