"""Queries that only the first set-up asks."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.money import BudgetRow, EverythingBudgetRow
from models.tables.tenancy import WebhookRow


async def has_budget(session: AsyncSession, tenant_id: UUID, assistant_id: UUID | None, window: str) -> bool:
    """Whether the tenant (or its assistant) has a budget over this window."""
    statement = select(BudgetRow.id).where(
        col(BudgetRow.tenant_id) == tenant_id,
        col(BudgetRow.assistant_id).is_not_distinct_from(assistant_id),
        col(BudgetRow.window_kind) == window,
    )
    return (await session.exec(statement)).one_or_none() is not None


async def has_everything_budget(session: AsyncSession, window: str) -> bool:
    """Whether there is a budget of everything over this window."""
    statement = select(EverythingBudgetRow).where(col(EverythingBudgetRow.window_kind) == window)
    return (await session.exec(statement)).one_or_none() is not None


async def set_everything_budget(session: AsyncSession, window: str, limit: int, who: str) -> None:
    """Write the budget of everything through the function that asks for the holding."""
    connection = await session.connection()
    await connection.execute(
        text("select set_everything_budget(:window, :limit, :who)"), {"window": window, "limit": limit, "who": who}
    )


async def has_webhook(session: AsyncSession, tenant_id: UUID, url: str) -> bool:
    """Whether the tenant has a webhook to this address."""
    statement = select(WebhookRow.id).where(col(WebhookRow.tenant_id) == tenant_id, col(WebhookRow.url) == url)
    return (await session.exec(statement.limit(1))).one_or_none() is not None
