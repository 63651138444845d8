"""What may be done next about an effect, by what came of its tries.

INVARIANT: where the other side takes no key, a try of which it is not known whether it was done is followed by another
only when a human has said so of that very try.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

MOST_TRIES = 10
"""Unasked, of one round; a human's word begins a new one."""


class TryState(StrEnum):
    """What is known of one try."""

    SENT = "sent"
    """It was about to be sent, and nobody has said what came of it."""
    PERFORMED = "performed"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Try:
    """One try at the other side.

    Attributes:
        warrant_id: Under which it was made; a human's leave to try again names it.
        was_sent: Whether anything may have reached the other side. A try that failed without is harmless.
    """

    state: TryState
    warrant_id: UUID
    was_sent: bool = True


class Next(StrEnum):
    """What may be done."""

    PERFORM = "perform"
    UNDER_WAY = "under_way"
    ASK = "ask"
    """Nobody knows whether it was done: a human says whether to try again."""
    PERFORMED = "performed"
    FAILED = "failed"


def next_step(tries: Sequence[Try], granted: frozenset[UUID], *, repeatable: bool) -> Next:
    """What may be done next.

    Args:
        tries: In their order.
        granted: Warrants of tries of which a human has said: try again.
        repeatable: Doing it twice is doing it once: the other side takes a key, or nothing is changed there.
    """
    if not tries:
        return Next.PERFORM
    last = tries[-1]
    if last.state is TryState.SENT:
        return Next.UNDER_WAY
    if any(one.state is TryState.PERFORMED for one in tries):
        return Next.PERFORMED
    if last.state is TryState.FAILED and last.was_sent:
        return Next.FAILED
    open_questions = [one for one in tries if one.state is TryState.UNKNOWN and one.warrant_id not in granted]
    if open_questions and not repeatable:
        return Next.ASK
    if last.warrant_id not in granted and _of_this_round(tries, granted) >= MOST_TRIES:
        return Next.ASK if open_questions else Next.FAILED
    return Next.PERFORM


def _of_this_round(tries: Sequence[Try], granted: frozenset[UUID]) -> int:
    count = 0
    for one in reversed(tries):
        if one.warrant_id in granted:
            break
        count += 1
    return count
