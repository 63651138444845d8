"""What stands in a work item's live timeline."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict


class EventKind(StrEnum):
    """What an event tells of."""

    OUTPUT = "output"
    """A piece of stdout or stderr became durable."""
    PROGRESS = "progress"
    """The agent said how far it is."""
    LLM_CALL = "llm_call"
    ACTION = "action"
    APPROVAL = "approval"
    QUESTION = "question"
    RESOURCE = "resource"
    """What the sandbox has used so far."""
    RUN = "run"
    """An attempt started, ended, was lost or is to be ended."""
    FILE = "file"
    """The agent left one."""
    STATUS = "status"
    """The item itself went on, money was held or charged for it, leave to run was given."""


class ItemEvent(BaseModel):
    """One event before it has its place in its item's order.

    Attributes:
        data: Small JSON values; money in nano-USD as text, since it may exceed 2^53.
        source: Names what is told, so that what is told twice is one event; None: each telling is its own.
        at: When it happened; None: when it was written, by the database's clock.
    """

    model_config = ConfigDict(frozen=True)

    work_item_id: UUID
    kind: EventKind
    data: dict[str, Any]
    source: str | None = None
    at: datetime | None = None


AUDITED = {
    "approval": EventKind.APPROVAL,
    "budget": EventKind.STATUS,
    "run": EventKind.RUN,
    "warrant": EventKind.STATUS,
    "work_item": EventKind.STATUS,
}
"""First words of the kinds of audit events that stand in their item's live timeline too, and as what."""
