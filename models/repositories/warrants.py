"""Queries over warrants."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.execution import WarrantRow


async def lock_live(session: AsyncSession, tenant_id: UUID, run_id: UUID) -> WarrantRow | None:
    """The run's warrant that is neither claimed nor revoked, locked until the transaction's end."""
    statement = (
        select(WarrantRow)
        .where(
            col(WarrantRow.tenant_id) == tenant_id,
            col(WarrantRow.run_id) == run_id,
            col(WarrantRow.claimed_at).is_(None),
            col(WarrantRow.revoked_at).is_(None),
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def end_of_claiming(session: AsyncSession, seconds: int) -> datetime:
    """A whole second, `seconds` from now by the database's clock."""
    connection = await session.connection()
    moment = await connection.scalar(
        text("select date_trunc('second', clock_timestamp() + make_interval(secs => :seconds))"),
        {"seconds": seconds},
    )
    assert isinstance(moment, datetime)
    return moment
