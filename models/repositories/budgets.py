"""Queries over budgets and their windows; everything's go through the named functions that alone may write them.

INVARIANT: a transaction takes its budgets in one order: assistant before tenant before everything, and in each
lifetime, month, day; in one budget the older window first. So two of them never wait for each other.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.budget import BudgetScope, BudgetWindow
from models.domain.money import PPM
from models.tables.money import BudgetRow, BudgetWindowRow, EverythingBudgetRow, EverythingWindowRow

WINDOW_ORDER = {BudgetWindow.LIFETIME: 0, BudgetWindow.MONTH: 1, BudgetWindow.DAY: 2}
_SCOPE_ORDER = {BudgetScope.ASSISTANT: 0, BudgetScope.TENANT: 1}


async def applying(session: AsyncSession, tenant_id: UUID, assistant_id: UUID) -> list[BudgetRow]:
    """The tenant's budgets that apply to an assistant's work, in the order in which they are taken.

    They are locked against a change of their limits, which therefore comes before or after a hold, never between.
    """
    statement = (
        select(BudgetRow)
        .where(col(BudgetRow.tenant_id) == tenant_id)
        .where((col(BudgetRow.assistant_id) == assistant_id) | (col(BudgetRow.scope) == "tenant"))
        .order_by(col(BudgetRow.id))
        .with_for_update(read=True)
        .execution_options(populate_existing=True)
    )
    found = (await session.exec(statement)).all()
    return sorted(found, key=_order)


def _order(row: BudgetRow) -> tuple[int, int]:
    return _SCOPE_ORDER[BudgetScope(row.scope)], WINDOW_ORDER[BudgetWindow(row.window_kind)]


async def everything(session: AsyncSession) -> list[EverythingBudgetRow]:
    """The budgets of everything, in the order in which they are taken."""
    found = (await session.exec(select(EverythingBudgetRow).execution_options(populate_existing=True))).all()
    return sorted(found, key=lambda row: WINDOW_ORDER[BudgetWindow(row.window_kind)])


async def hold(
    session: AsyncSession, tenant_id: UUID, budget_id: UUID, key: str, amount: int, *, waiting: bool, share: int
) -> bool:
    """Add to a window's holds unless its limit, or the share of waiting holds, would be passed."""
    connection = await session.connection()
    values: dict[str, Any] = {
        "tenant": tenant_id, "budget": budget_id, "key": key, "amount": amount, "waiting": waiting, "share": share,
        "ppm": PPM,
    }  # fmt: skip
    await connection.execute(
        text(
            "insert into budget_windows (tenant_id, budget_id, window_key) values (:tenant, :budget, :key)"
            " on conflict do nothing"
        ),
        values,
    )
    found = await connection.execute(
        text(
            "update budget_windows w set reserved_nano = w.reserved_nano + :amount,"
            " waiting_nano = w.waiting_nano + case when :waiting then cast(:amount as bigint) else 0 end"
            " from budgets b where b.tenant_id = w.tenant_id and b.id = w.budget_id"
            " and w.tenant_id = :tenant and w.budget_id = :budget and w.window_key = :key"
            " and w.spent_nano::numeric + w.reserved_nano + :amount <= b.limit_nano"
            " and (not :waiting or (w.waiting_nano::numeric + :amount) * :ppm <= b.limit_nano::numeric * :share)"
            " returning true"
        ),
        values,
    )
    return found.scalar() is not None


async def change(
    session: AsyncSession,
    tenant_id: UUID,
    budget_id: UUID,
    key: str,
    *,
    spent: int = 0,
    reserved: int = 0,
    waiting: int = 0,
) -> None:
    """Add to (or take from) a window's figures; never more to what is used than is taken from what is held."""
    assert spent + reserved <= 0, "what raises a window's use goes through hold()"
    connection = await session.connection()
    await connection.execute(
        text(
            "update budget_windows set spent_nano = spent_nano + :spent, reserved_nano = reserved_nano + :reserved,"
            " waiting_nano = waiting_nano + :waiting"
            " where tenant_id = :tenant and budget_id = :budget and window_key = :key"
        ),
        {"tenant": tenant_id, "budget": budget_id, "key": key}
        | {"spent": spent, "reserved": reserved, "waiting": waiting},
    )


async def hold_everything(
    session: AsyncSession, kind: str, key: str, amount: int, *, waiting: bool, share: int
) -> bool:
    """The same for a window of everything."""
    connection = await session.connection()
    return bool(
        await connection.scalar(
            text("select hold_everything(:kind, :key, :amount, :waiting, :share)"),
            {"kind": kind, "key": key, "amount": amount, "waiting": waiting, "share": share},
        )
    )


async def free_everything(
    session: AsyncSession, kind: str, key: str, amount: int, *, waiting: bool, spent: int = 0
) -> None:
    """Take a hold from a window of everything, and book what of it was spent."""
    connection = await session.connection()
    await connection.execute(
        text("select free_everything(:kind, :key, :amount, :waiting, :spent)"),
        {"kind": kind, "key": key, "amount": amount, "waiting": waiting, "spent": spent},
    )


async def claim_everything(session: AsyncSession, kind: str, key: str, amount: int) -> None:
    """A waiting hold of a window of everything is a firm one now."""
    connection = await session.connection()
    await connection.execute(
        text("select claim_everything(:kind, :key, :amount)"), {"kind": kind, "key": key, "amount": amount}
    )


async def window(session: AsyncSession, tenant_id: UUID, budget_id: UUID, key: str) -> BudgetWindowRow | None:
    """How much of a budget is used in one window."""
    statement = (
        select(BudgetWindowRow)
        .where(
            col(BudgetWindowRow.tenant_id) == tenant_id,
            col(BudgetWindowRow.budget_id) == budget_id,
            col(BudgetWindowRow.window_key) == key,
        )
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def everything_window(session: AsyncSession, kind: str, key: str) -> EverythingWindowRow | None:
    """How much of a budget of everything is used in one window."""
    statement = (
        select(EverythingWindowRow)
        .where(col(EverythingWindowRow.window_kind) == kind, col(EverythingWindowRow.window_key) == key)
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def of_tenant(session: AsyncSession, tenant_id: UUID) -> list[BudgetRow]:
    """All budgets of one tenant."""
    statement = select(BudgetRow).where(col(BudgetRow.tenant_id) == tenant_id).execution_options(populate_existing=True)
    found = (await session.exec(statement)).all()
    return sorted(found, key=lambda row: (*_order(row), str(row.assistant_id)))


async def upsert(session: AsyncSession, row: BudgetRow) -> Row[Any]:
    """Create the budget, or change the limit of the one with its scope and window; answers (id, old limit)."""
    connection = await session.connection()
    found = await connection.execute(
        text(
            "with old as (select id, limit_nano from budgets where tenant_id = :tenant and scope = :scope"
            "  and assistant_id is not distinct from cast(:assistant as uuid) and window_kind = :kind for update),"
            " done as (insert into budgets (tenant_id, id, scope, assistant_id, window_kind, limit_nano, updated_by)"
            "  values (:tenant, :id, :scope, :assistant, :kind, :limit, :by)"
            "  on conflict (tenant_id, scope, (coalesce(assistant_id, '00000000-0000-0000-0000-000000000000'::uuid)),"
            "   window_kind) do update set limit_nano = excluded.limit_nano, updated_by = excluded.updated_by,"
            "   updated_at = clock_timestamp() returning id)"
            " select done.id as id, old.limit_nano as old_limit from done left join old on true"
        ),
        {
            "tenant": row.tenant_id, "id": row.id, "scope": row.scope, "assistant": row.assistant_id,
            "kind": row.window_kind, "limit": row.limit_nano, "by": row.updated_by,
        },
    )  # fmt: skip
    return found.one()


async def set_everything(session: AsyncSession, kind: str, limit: int, by: str) -> None:
    """Set a budget of everything; the database refuses whoever is not the holding."""
    connection = await session.connection()
    await connection.execute(
        text("select set_everything_budget(:kind, :limit, :by)"), {"kind": kind, "limit": limit, "by": by}
    )
