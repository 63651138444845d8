"""Queries over host runtimes and their enrolment tokens."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.execution import EnrolmentTokenRow, RuntimeRow


async def get(session: AsyncSession, tenant_id: UUID, runtime_id: UUID) -> RuntimeRow | None:
    """One runtime of exactly this tenant."""
    statement = (
        select(RuntimeRow)
        .where(col(RuntimeRow.tenant_id) == tenant_id, col(RuntimeRow.id) == runtime_id)
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def by_key(session: AsyncSession, tenant_id: UUID, public_key: str) -> RuntimeRow | None:
    """The tenant's runtime with this key."""
    statement = select(RuntimeRow).where(
        col(RuntimeRow.tenant_id) == tenant_id, col(RuntimeRow.public_key) == public_key
    )
    return (await session.exec(statement)).one_or_none()


async def all_of(session: AsyncSession, tenant_id: UUID) -> list[RuntimeRow]:
    """The tenant's runtimes, the newest first."""
    statement = select(RuntimeRow).where(col(RuntimeRow.tenant_id) == tenant_id).order_by(col(RuntimeRow.id).desc())
    return list((await session.exec(statement)).all())


async def lock_token(session: AsyncSession, token_hash: str) -> EnrolmentTokenRow | None:
    """An enrolment token of the session's tenant, locked until the transaction's end."""
    statement = (
        select(EnrolmentTokenRow)
        .where(col(EnrolmentTokenRow.token_hash) == token_hash)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def heard(session: AsyncSession, tenant_id: UUID, runtime_id: UUID, facts: dict[str, Any] | None = None) -> None:
    """Note that it was heard just now, and what it says of itself."""
    connection = await session.connection()
    await connection.execute(
        text(
            "update runtimes set last_heard_at = clock_timestamp(), facts = coalesce(cast(:facts as jsonb), facts)"
            " where tenant_id = :tenant and id = :id"
        ),
        {"tenant": tenant_id, "id": runtime_id, "facts": None if facts is None else json.dumps(facts)},
    )
