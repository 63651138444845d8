"""Queries over halts; written through the definer function `set_halt` alone."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.tenancy import HaltRow


async def get(session: AsyncSession, scope: str, key: str) -> HaltRow | None:
    """One halt, in force or lifted."""
    statement = (
        select(HaltRow)
        .where(col(HaltRow.scope) == scope, col(HaltRow.key) == key)
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def of_tenants(session: AsyncSession, tenant_ids: Sequence[UUID]) -> list[HaltRow]:
    """The halt of everything and those of the given tenants and their assistants, newest change first."""
    wanted = {str(tenant_id) for tenant_id in tenant_ids}
    found = (await session.exec(select(HaltRow).order_by(col(HaltRow.changed_at).desc()))).all()
    return [row for row in found if row.scope == "everything" or row.key.split("/", 1)[0] in wanted]


async def change(
    session: AsyncSession,
    scope: str,
    tenant_id: UUID,
    assistant_id: UUID | None,
    *,
    active: bool,
    mode: str,
    reason: str,
    who: str,
) -> int:
    """Set or lift a halt through the function that checks the caller's tenant; answers the epoch."""
    connection = await session.connection()
    return (
        await connection.execute(
            text("select set_halt(:scope, :tenant, cast(:assistant as uuid), :active, :mode, :reason, :who)"),
            {
                "scope": scope,
                "tenant": tenant_id,
                "assistant": assistant_id,
                "active": active,
                "mode": mode,
                "reason": reason,
                "who": who,
            },
        )
    ).scalar_one()
