"""What a connector sends, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """What is known after a try."""

    PERFORMED = "performed"
    FAILED = "failed"
    """The other side says that it was not done, and would say so again."""
    NOT_SENT = "not_sent"
    """Nothing reached the other side: trying again is harmless."""
    NOT_ALLOWED = "not_allowed"
    """Nothing was sent, nor will be: the name leads to an address that may not be reached."""
    UNKNOWN = "unknown"
    """It may have been done: no answer came, or one that does not say."""


@dataclass(frozen=True)
class Answer:
    """What came of a try.

    Attributes:
        words: For people.
        record: What is kept of the answer, without secrets.
        result: What the agent is told, without secrets; {} where nothing came.
    """

    outcome: Outcome
    words: str
    record: dict[str, Any]
    result: dict[str, Any]
