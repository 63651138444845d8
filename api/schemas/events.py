"""The live timeline and the costs of a work item, as the API speaks of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import Field

from api.schemas.fields import Answer
from models.domain.events import EventKind
from models.domain.money import format_usd
from models.services.item_costs import CostSplit
from models.tables.events import ItemEventRow
from models.tables.llm import LlmChargeRow


class LiveEvent(Answer):
    """One event of a work item's live timeline."""

    seq: int = Field(description="Its place; `after`, and `Last-Event-ID`, go on from it.")
    at: datetime
    kind: EventKind
    data: dict[str, Any] = Field(description="By kind; see docs/timeline.md. `cut` is true where it was too large.")

    @classmethod
    def of(cls, row: ItemEventRow) -> Self:
        """The answer for a row."""
        return cls(seq=row.seq, at=row.at, kind=EventKind(row.kind), data=row.data)


class EventPage(Answer):
    """Events in order."""

    items: list[LiveEvent]
    next_after: int | None = Field(description="`after` of the next page; null: that was all, so far.")


class CostAnswer(Answer):
    """What a work item has cost so far, by what for."""

    sandbox: str = Field(description="The sandbox's time; charged when the item is settled.")
    sandbox_nano: int
    llm: str = Field(description="Model calls; charged one by one.")
    llm_nano: int
    calls: int
    estimated_calls: int = Field(description="Calls whose real usage is not known; charged at what was held for them.")
    tokens: dict[str, int] = Field(description="By class.")

    @classmethod
    def of(cls, split: CostSplit) -> Self:
        """The answer for a split."""
        return cls(
            sandbox=format_usd(split.sandbox),
            sandbox_nano=split.sandbox,
            llm=format_usd(split.llm),
            llm_nano=split.llm,
            calls=split.calls,
            estimated_calls=split.estimated,
            tokens=split.tokens,
        )


class LedgerLine(Answer):
    """One model call's charge; never changed."""

    call_id: UUID
    attempt: int
    model: str
    kind: str = Field(description="final, estimated or unaccounted.")
    held_nano: int
    amount: str
    amount_nano: int
    tokens: dict[str, Any]
    prices: dict[str, Any] = Field(description="The unit prices that it was charged by, in nano-USD.")
    card_version: int | None
    upstream_id: str | None
    upstream_status: int | None
    streamed: bool
    detail: str
    started_at: datetime
    ended_at: datetime

    @classmethod
    def of(cls, row: LlmChargeRow) -> Self:
        """The answer for a row."""
        fields = row.model_dump(include=set(cls.model_fields))
        return cls.model_validate(fields | {"amount": format_usd(row.amount_nano)})


class LedgerPage(Answer):
    """A work item's costs, and a page of the ledger of its model calls, the oldest first."""

    costs: CostAnswer
    items: list[LedgerLine]
    next_cursor: str | None
