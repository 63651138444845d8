"""Holding, claiming, settling and freeing money: reservations over every budget that applies."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.principal import Principal


class ReserveResult(BaseModel):
    """What came of a reservation.

    Attributes:
        held: The worst case is held. Otherwise the item is `awaiting_budget`.
        words: Which budget is short: limit, spent, held, needed, when it resets.
        retry_at: Start of the next window of the short budget; None for a lifetime budget.
        deadline: When to give up waiting for money.
    """

    model_config = ConfigDict(frozen=True)

    held: bool
    words: str = ""
    retry_at: datetime | None = None
    deadline: datetime | None = None


async def reserve(
    session: AsyncSession, principal: Principal, work_item_id: UUID, now: datetime | None = None
) -> ReserveResult:
    """Hold the item's worst case on every budget that applies, or on none (item → `awaiting_budget`).

    Repeatable: a live reservation answers `held`. Moves the item to `awaiting_budget` itself, never out of it.
    """
    raise NotImplementedError


async def claim(
    session: AsyncSession, principal: Principal, work_item_id: UUID, now: datetime | None = None
) -> bool:
    """Make the hold a firm one, in the windows current at `now`; False: no hold, or the new window is short."""
    raise NotImplementedError


async def release(session: AsyncSession, principal: Principal, work_item_id: UUID) -> None:
    """Free the item's live hold whole, if there is one; repeatable."""
    raise NotImplementedError


async def settle(
    session: AsyncSession,
    principal: Principal,
    work_item_id: UUID,
    actual_nano: int,
    kind: str = "sandbox_time",
    detail: dict[str, Any] | None = None,
) -> int:
    """Book what was spent (at most what is held) and free the rest; answers what was charged; repeatable."""
    raise NotImplementedError
