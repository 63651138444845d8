"""Queries over principals."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.tenancy import PrincipalRow


async def get(session: AsyncSession, tenant_id: UUID, principal_id: UUID) -> PrincipalRow | None:
    """One principal of a tenant."""
    statement = select(PrincipalRow).where(
        col(PrincipalRow.tenant_id) == tenant_id, col(PrincipalRow.id) == principal_id
    )
    return (await session.exec(statement)).one_or_none()


async def by_subject(session: AsyncSession, tenant_id: UUID, issuer: str, subject: str) -> PrincipalRow | None:
    """The principal that an issuer calls `subject`."""
    statement = select(PrincipalRow).where(
        col(PrincipalRow.tenant_id) == tenant_id,
        col(PrincipalRow.issuer) == issuer,
        col(PrincipalRow.subject) == subject,
    )
    return (await session.exec(statement)).one_or_none()


async def page(session: AsyncSession, after: UUID | None, limit: int) -> list[PrincipalRow]:
    """Principals that the session sees, newest first."""
    statement = select(PrincipalRow).order_by(col(PrincipalRow.id).desc()).limit(limit)
    if after is not None:
        statement = statement.where(col(PrincipalRow.id) < after)
    return list((await session.exec(statement)).all())


async def insert_if_new(session: AsyncSession, row: PrincipalRow) -> bool:
    """Insert unless the subject is known; a race has one winner. Answers whether it was inserted."""
    values = row.model_dump(exclude={"created_at"})
    statement = insert(PrincipalRow).values(**values).on_conflict_do_nothing().returning(col(PrincipalRow.id))
    connection = await session.connection()
    return (await connection.execute(statement)).scalar() is not None


async def names_with_role(session: AsyncSession, tenant_ids: Iterable[UUID], role: str) -> list[str]:
    """Display names of those users in the given tenants who have `role`, as far as the session sees them."""
    statement = (
        select(PrincipalRow.display_name)
        .where(
            col(PrincipalRow.tenant_id).in_(list(tenant_ids)),
            col(PrincipalRow.kind) == "user",
            col(PrincipalRow.roles).contains([role]),
        )
        .order_by(func.lower(PrincipalRow.display_name))
        .limit(8)
    )
    return list((await session.exec(statement)).all())
