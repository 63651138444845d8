"""Queries over the audit trail."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.records import AuditEventRow, AuditHeadRow


@dataclass(frozen=True)
class Filter:
    """Which events a list shows; None shows all."""

    kind: str | None = None
    """A kind, or with a trailing `.` all kinds that start so."""
    actor_id: str | None = None
    work_item_id: UUID | None = None
    subject: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def of_work_item(
    session: AsyncSession, tenant_id: UUID, work_item_id: UUID, after_seq: int, limit: int
) -> list[AuditEventRow]:
    """An item's events in order."""
    statement = (
        select(AuditEventRow)
        .where(
            col(AuditEventRow.tenant_id) == tenant_id,
            col(AuditEventRow.work_item_id) == work_item_id,
            col(AuditEventRow.seq) > after_seq,
        )
        .order_by(col(AuditEventRow.seq))
        .limit(limit)
    )
    return list((await session.exec(statement)).all())


async def page(
    session: AsyncSession, tenant_id: UUID, wanted: Filter, before_seq: int | None, limit: int
) -> list[AuditEventRow]:
    """A tenant's events, newest first."""
    statement = (
        select(AuditEventRow)
        .where(col(AuditEventRow.tenant_id) == tenant_id)
        .order_by(col(AuditEventRow.seq).desc())
        .limit(limit)
    )
    if before_seq is not None:
        statement = statement.where(col(AuditEventRow.seq) < before_seq)
    if wanted.kind is not None:
        kind = col(AuditEventRow.kind)
        statement = statement.where(
            kind.startswith(wanted.kind, autoescape=True) if wanted.kind.endswith(".") else kind == wanted.kind
        )
    if wanted.actor_id is not None:
        statement = statement.where(col(AuditEventRow.actor_id) == wanted.actor_id)
    if wanted.work_item_id is not None:
        statement = statement.where(col(AuditEventRow.work_item_id) == wanted.work_item_id)
    if wanted.subject is not None:
        statement = statement.where(col(AuditEventRow.subject) == wanted.subject)
    if wanted.since is not None:
        statement = statement.where(col(AuditEventRow.occurred_at) >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(col(AuditEventRow.occurred_at) < wanted.until)
    return list((await session.exec(statement)).all())


async def batch(session: AsyncSession, tenant_id: UUID, after_seq: int, limit: int) -> list[AuditEventRow]:
    """A tenant's next events in the chain's order."""
    statement = (
        select(AuditEventRow)
        .where(col(AuditEventRow.tenant_id) == tenant_id, col(AuditEventRow.seq) > after_seq)
        .order_by(col(AuditEventRow.seq), col(AuditEventRow.occurred_at))
        .limit(limit)
    )
    return list((await session.exec(statement)).all())


async def head(session: AsyncSession, tenant_id: UUID) -> AuditHeadRow | None:
    """Where a tenant's chain ends."""
    statement = (
        select(AuditHeadRow).where(col(AuditHeadRow.tenant_id) == tenant_id).execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()
