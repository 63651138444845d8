"""Queries over assistants."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.tenancy import AssistantRow


async def get(session: AsyncSession, assistant_id: UUID) -> AssistantRow | None:
    """One assistant, of any tenant that the session sees."""
    return (await session.exec(select(AssistantRow).where(col(AssistantRow.id) == assistant_id))).one_or_none()


async def find(session: AsyncSession, tenant_id: UUID, name: str) -> AssistantRow | None:
    """A tenant's assistant by slug or by id."""
    try:
        wanted = col(AssistantRow.id) == UUID(name)
    except ValueError:
        wanted = col(AssistantRow.slug) == name
    statement = select(AssistantRow).where(col(AssistantRow.tenant_id) == tenant_id, wanted)
    return (await session.exec(statement)).one_or_none()


async def lock(session: AsyncSession, tenant_id: UUID, assistant_id: UUID) -> AssistantRow | None:
    """An assistant of the session's own tenant, locked until the transaction's end."""
    statement = (
        select(AssistantRow)
        .where(col(AssistantRow.tenant_id) == tenant_id, col(AssistantRow.id) == assistant_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def page(session: AsyncSession, after: UUID | None, limit: int) -> list[AssistantRow]:
    """Assistants that the session sees, newest first."""
    statement = select(AssistantRow).order_by(col(AssistantRow.id).desc()).limit(limit)
    if after is not None:
        statement = statement.where(col(AssistantRow.id) < after)
    return list((await session.exec(statement)).all())


async def count_end(session: AsyncSession, tenant_id: UUID, assistant_id: UUID, *, succeeded: bool) -> None:
    """Add one ended run to the assistant's record."""
    column = "succeeded_count" if succeeded else "failed_count"
    connection = await session.connection()
    await connection.execute(
        text(f"update assistants set {column} = {column} + 1 where tenant_id = :tenant and id = :id"),  # noqa: S608 - one of two names
        {"tenant": tenant_id, "id": assistant_id},
    )
