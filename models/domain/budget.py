"""Budgets: for whom, over which window of time, and how much of one is used."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from models.domain.money import ZERO, Amount, NanoUsd


class BudgetScope(StrEnum):
    """Whose spending a budget limits."""

    ASSISTANT = "assistant"
    TENANT = "tenant"
    EVERYTHING = "everything"


class BudgetWindow(StrEnum):
    """Over which time. Days and months are those of UTC."""

    DAY = "day"
    MONTH = "month"
    LIFETIME = "lifetime"


class BudgetUse(BaseModel):
    """One budget in one window.

    INVARIANT: ``spent + reserved <= limit`` after every hold, and ``waiting <= reserved``: the holds that
    wait for an approval are a part of what is reserved.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: Amount
    spent: Amount = ZERO
    reserved: Amount = ZERO
    waiting: Amount = ZERO

    @property
    def left(self) -> NanoUsd:
        """What a new hold may still take; zero when the limit was lowered below what is used."""
        return NanoUsd(max(0, self.limit - self.spent - self.reserved))


def window_key(now: datetime, window: BudgetWindow) -> str:
    """Name the window that `now` (aware) falls into: ``2026-11-24``, ``2026-11`` or ``lifetime``."""
    moment = _utc(now)
    match window:
        case BudgetWindow.DAY:
            return f"{moment:%Y-%m-%d}"
        case BudgetWindow.MONTH:
            return f"{moment:%Y-%m}"
        case BudgetWindow.LIFETIME:
            return "lifetime"


def window_end(now: datetime, window: BudgetWindow) -> datetime | None:
    """The first moment (UTC) that is outside the window of `now`; None for a lifetime."""
    moment = _utc(now)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    match window:
        case BudgetWindow.DAY:
            return midnight + timedelta(days=1)
        case BudgetWindow.MONTH:
            return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
        case BudgetWindow.LIFETIME:
            return None


def _utc(now: datetime) -> datetime:
    if now.utcoffset() is None:
        raise ValueError("a moment without a time zone has no budget window; pass an aware datetime")
    return now.astimezone(UTC)
