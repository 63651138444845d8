"""What becomes of a sandbox whose agent only waits for people. Pure."""

from __future__ import annotations

from enum import StrEnum

from models.domain.policy import ActionRules, WhileWaiting


class Waiting(StrEnum):
    """How a run waits; the words of its row."""

    PAUSED = "paused"
    """Its sandbox stands still; its lease goes on."""
    SUSPENDED = "suspended"
    """Its sandbox is ended, or is about to be; its next attempt goes on with the decision."""


class WaitingStep(StrEnum):
    """What is to be done now."""

    PAUSE = "pause"
    RESUME = "resume"
    SUSPEND = "suspend"


def next_step(
    rules: ActionRules, waiting: Waiting | None, waited: float | None, *, may_start_again: bool
) -> WaitingStep | None:
    """What is to be done with a live run.

    Args:
        rules: Of its pinned policy.
        waiting: How its row says that it waits.
        waited: Seconds for which its agent has done nothing but wait; None: it waits for nobody.
        may_start_again: Another attempt may follow this one; a run that has used them up is paused instead.
    """
    if waited is None:
        return WaitingStep.RESUME if waiting is Waiting.PAUSED else None
    if waiting is not None or waited < rules.grace_seconds or rules.while_waiting is WhileWaiting.STAY:
        return None
    if rules.while_waiting is WhileWaiting.SUSPEND and may_start_again:
        return WaitingStep.SUSPEND
    return WaitingStep.PAUSE
