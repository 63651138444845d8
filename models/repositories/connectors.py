"""Queries over connectors and secrets."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.actions import ConnectorRow, SecretRow


async def find(session: AsyncSession, tenant_id: UUID, name: str, *, lock: bool = False) -> ConnectorRow | None:
    """A company's connector by its name."""
    statement = (
        select(ConnectorRow)
        .where(col(ConnectorRow.tenant_id) == tenant_id, col(ConnectorRow.name) == name)
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement.with_for_update() if lock else statement)).one_or_none()


async def all_of(session: AsyncSession, tenant_id: UUID) -> list[ConnectorRow]:
    """A company's connectors, by name."""
    statement = select(ConnectorRow).where(col(ConnectorRow.tenant_id) == tenant_id).order_by(col(ConnectorRow.name))
    return list((await session.exec(statement)).all())


async def secret(session: AsyncSession, tenant_id: UUID, name: str, *, lock: bool = False) -> SecretRow | None:
    """A company's secret, sealed."""
    statement = (
        select(SecretRow)
        .where(col(SecretRow.tenant_id) == tenant_id, col(SecretRow.name) == name)
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement.with_for_update() if lock else statement)).one_or_none()


async def secrets_of(session: AsyncSession, tenant_id: UUID) -> Sequence[SecretRow]:
    """All secrets of a company, sealed, by name."""
    statement = select(SecretRow).where(col(SecretRow.tenant_id) == tenant_id).order_by(col(SecretRow.name))
    return (await session.exec(statement)).all()


async def delete_secret(session: AsyncSession, tenant_id: UUID, name: str) -> None:
    """Forget a secret."""
    await session.exec(delete(SecretRow).where(col(SecretRow.tenant_id) == tenant_id, col(SecretRow.name) == name))
