"""Setting budgets, and reading how much of each is used."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.budget import BudgetScope, BudgetWindow
from models.domain.principal import Principal


class BudgetView(BaseModel):
    """A budget and its use in the current window. Amounts are nano-USD."""

    model_config = ConfigDict(frozen=True)

    id: UUID | None
    """None for a budget of everything, which its window names."""
    scope: BudgetScope
    assistant_id: UUID | None = None
    window: BudgetWindow
    window_key: str
    limit_nano: int
    spent_nano: int = 0
    reserved_nano: int = 0
    waiting_nano: int = 0
    left_nano: int = 0
    resets_at: datetime | None = None
    updated_by: str = ""
    updated_at: datetime | None = None


async def set_budget(
    session: AsyncSession,
    principal: Principal,
    *,
    scope: BudgetScope,
    window: BudgetWindow,
    limit_nano: int,
    assistant_id: UUID | None = None,
) -> BudgetView:
    """Create or change one hard limit; wakes what waits for money.

    Raises:
        InvalidInput: `assistant_id` does not fit the scope, or the limit is no amount.
        NotFound: There is no such assistant in the session's tenant.
        Forbidden: Everything's budget, asked for by somebody who is not of the holding.
    """
    raise NotImplementedError


async def list_budgets(
    session: AsyncSession, principal: Principal, now: datetime | None = None
) -> list[BudgetView]:
    """The budgets of the session's tenant and of everything, with their use in the window of `now`."""
    raise NotImplementedError
