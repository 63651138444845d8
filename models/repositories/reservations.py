"""Queries over reservations, the windows that they count in, and charges."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.money import ReservationEverythingLineRow, ReservationLineRow, ReservationRow
from models.tables.work import WorkItemRow


async def lock_live(session: AsyncSession, tenant_id: UUID, work_item_id: UUID) -> ReservationRow | None:
    """The item's reservation that is waiting or claimed, locked until the transaction's end."""
    statement = (
        select(ReservationRow)
        .where(
            col(ReservationRow.tenant_id) == tenant_id,
            col(ReservationRow.work_item_id) == work_item_id,
            col(ReservationRow.phase).in_(["waiting", "claimed"]),
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def lines(session: AsyncSession, reservation: ReservationRow) -> dict[UUID, ReservationLineRow]:
    """Which window of each of the tenant's budgets it counts in."""
    statement = (
        select(ReservationLineRow)
        .where(
            col(ReservationLineRow.tenant_id) == reservation.tenant_id,
            col(ReservationLineRow.reservation_id) == reservation.id,
        )
        .execution_options(populate_existing=True)
    )
    return {line.budget_id: line for line in (await session.exec(statement)).all()}


async def everything_lines(
    session: AsyncSession, reservation: ReservationRow
) -> dict[str, ReservationEverythingLineRow]:
    """The same for the budgets of everything, by the kind of window."""
    statement = (
        select(ReservationEverythingLineRow)
        .where(
            col(ReservationEverythingLineRow.tenant_id) == reservation.tenant_id,
            col(ReservationEverythingLineRow.reservation_id) == reservation.id,
        )
        .execution_options(populate_existing=True)
    )
    return {line.window_kind: line for line in (await session.exec(statement)).all()}


async def somebody_awaits_budget(session: AsyncSession, tenant_id: UUID) -> bool:
    """Whether an item of the tenant waits for money."""
    statement = (
        select(WorkItemRow.id)
        .where(col(WorkItemRow.tenant_id) == tenant_id, col(WorkItemRow.status) == "awaiting_budget")
        .limit(1)
    )
    return (await session.exec(statement)).one_or_none() is not None


async def awaiting_since(session: AsyncSession, tenant_id: UUID, work_item_id: UUID) -> datetime | None:
    """When the item last began to wait for money, by its audit trail."""
    connection = await session.connection()
    return await connection.scalar(
        text(
            "select max(occurred_at) from audit_events where tenant_id = :tenant and work_item_id = :item"
            " and kind = 'work_item.awaiting_budget'"
        ),
        {"tenant": tenant_id, "item": work_item_id},
    )


async def leaked(session: AsyncSession, tenant_id: UUID, limit: int) -> list[UUID]:
    """Items that are final and still hold money: what reconciliation frees."""
    statement = (
        select(WorkItemRow.id)
        .join(
            ReservationRow,
            (col(ReservationRow.tenant_id) == col(WorkItemRow.tenant_id))
            & (col(ReservationRow.work_item_id) == col(WorkItemRow.id)),
        )
        .where(
            col(WorkItemRow.tenant_id) == tenant_id,
            col(WorkItemRow.ended_at).is_not(None),
            col(ReservationRow.phase).in_(["waiting", "claimed"]),
        )
        .order_by(col(WorkItemRow.id))
        .limit(limit)
    )
    return list((await session.exec(statement)).all())
