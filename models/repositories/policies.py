"""Queries over policy versions."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.tenancy import PolicyVersionRow


async def current(session: AsyncSession, tenant_id: UUID) -> PolicyVersionRow | None:
    """The tenant's newest version."""
    statement = (
        select(PolicyVersionRow)
        .where(col(PolicyVersionRow.tenant_id) == tenant_id)
        .order_by(col(PolicyVersionRow.version).desc())
        .limit(1)
    )
    return (await session.exec(statement)).one_or_none()


async def get(session: AsyncSession, tenant_id: UUID, policy_version_id: UUID) -> PolicyVersionRow | None:
    """One version by its id."""
    statement = select(PolicyVersionRow).where(
        col(PolicyVersionRow.tenant_id) == tenant_id, col(PolicyVersionRow.id) == policy_version_id
    )
    return (await session.exec(statement)).one_or_none()


async def by_number(session: AsyncSession, tenant_id: UUID, version: int) -> PolicyVersionRow | None:
    """One version by its number."""
    statement = select(PolicyVersionRow).where(
        col(PolicyVersionRow.tenant_id) == tenant_id, col(PolicyVersionRow.version) == version
    )
    return (await session.exec(statement)).one_or_none()


async def page(session: AsyncSession, tenant_id: UUID, after: UUID | None, limit: int) -> list[PolicyVersionRow]:
    """Versions, newest first."""
    statement = (
        select(PolicyVersionRow)
        .where(col(PolicyVersionRow.tenant_id) == tenant_id)
        .order_by(col(PolicyVersionRow.id).desc())
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(col(PolicyVersionRow.id) < after)
    return list((await session.exec(statement)).all())


async def lock_numbering(session: AsyncSession, tenant_id: UUID) -> None:
    """Let one writer at a time number a version of this tenant (until the transaction's end)."""
    connection = await session.connection()
    await connection.execute(
        text("select pg_advisory_xact_lock(hashtextextended('policy/' || cast(:tenant as text), 0))"),
        {"tenant": str(tenant_id)},
    )
