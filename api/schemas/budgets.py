"""Budgets, as the API speaks of them."""

from __future__ import annotations

from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import Field

from api.schemas.fields import Answer, Body, MoneyText
from models.domain.budget import BudgetScope, BudgetWindow
from models.domain.money import format_usd
from models.services.budgets import BudgetView


class BudgetBody(Body):
    """A hard limit to set."""

    scope: BudgetScope
    window: BudgetWindow
    limit: MoneyText
    assistant_id: UUID | None = Field(None, description="Needed for the scope `assistant`, and for no other.")


class BudgetAnswer(Answer):
    """A budget and its use in the window of now."""

    id: UUID | None = Field(description="Null for the budget of everything, which its window names.")
    scope: BudgetScope
    assistant_id: UUID | None
    window: BudgetWindow
    window_key: str = Field(examples=["2026-11"])
    limit: str = Field(examples=["200.00 USD"])
    limit_nano: int
    spent: str
    spent_nano: int
    reserved: str
    reserved_nano: int
    left: str
    left_nano: int
    waiting_nano: int = Field(description="The part of what is reserved that waits for an approval.")
    resets_at: datetime | None
    updated_by: str
    updated_at: datetime | None

    @classmethod
    def of(cls, view: BudgetView) -> Self:
        """The answer for a budget."""
        return cls(
            **view.model_dump(),
            limit=format_usd(view.limit_nano),
            spent=format_usd(view.spent_nano),
            reserved=format_usd(view.reserved_nano),
            left=format_usd(view.left_nano),
        )


class BudgetList(Answer):
    """The budgets that apply to a tenant's work."""

    items: list[BudgetAnswer]
