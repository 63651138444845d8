"""Queries over tenants. What the session does not see is not there."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.tenancy import TenantRow


async def get(session: AsyncSession, tenant_id: UUID) -> TenantRow | None:
    """One tenant, if the session sees it."""
    return (await session.exec(select(TenantRow).where(col(TenantRow.tenant_id) == tenant_id))).one_or_none()


async def visible(session: AsyncSession) -> list[TenantRow]:
    """The session's own tenant and what it holds, the holding first."""
    statement = select(TenantRow).order_by(col(TenantRow.kind), col(TenantRow.slug))
    return list((await session.exec(statement)).all())


async def database_now(session: AsyncSession) -> datetime:
    """The database's clock, now (not the transaction's start)."""
    return (await session.exec(select(func.clock_timestamp()))).one()
