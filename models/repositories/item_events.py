"""Queries over the live timeline of work items."""

from __future__ import annotations

from uuid import UUID

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.events import ItemEventHeadRow, ItemEventRow


async def head(session: AsyncSession, tenant_id: UUID, work_item_id: UUID) -> int:
    """The item's last seq; 0 where nothing was told yet."""
    statement = select(ItemEventHeadRow.seq).where(
        col(ItemEventHeadRow.tenant_id) == tenant_id, col(ItemEventHeadRow.work_item_id) == work_item_id
    )
    return (await session.exec(statement)).one_or_none() or 0


async def after(session: AsyncSession, work_item_id: UUID, seq: int, limit: int) -> list[ItemEventRow]:
    """The item's events beyond `seq`, in order; of any tenant that the session sees."""
    statement = (
        select(ItemEventRow)
        .where(col(ItemEventRow.work_item_id) == work_item_id, col(ItemEventRow.seq) > seq)
        .order_by(col(ItemEventRow.seq))
        .limit(limit)
    )
    return list((await session.exec(statement)).all())
