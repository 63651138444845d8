"""What a run's credential is compared with, read in one statement."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel.ext.asyncio.session import AsyncSession

_READ = text(
    "select r.status, r.attempt, r.warrant_id, r.kill_reason, i.id as work_item_id, i.assistant_id,"
    " i.status as item_status, i.cancel_requested_at is not null as cancelled, i.reservation_id,"
    " i.spec -> 'llm' as llm,"
    " extract(epoch from r.lease_until - clock_timestamp())::float8 as lease_seconds,"
    " (select coalesce(jsonb_object_agg(h.scope, h.epoch) filter (where h.mode = 'kill'), '{}') from halts h"
    "   where (h.scope, h.key) in (('everything', 'everything'), ('tenant', r.tenant_id::text),"
    "   ('assistant', r.tenant_id::text || '/' || i.assistant_id::text))) as killing,"
    " exists (select 1 from halts h where h.active and (h.scope, h.key) in (('everything', 'everything'),"
    "   ('tenant', r.tenant_id::text), ('assistant', r.tenant_id::text || '/' || i.assistant_id::text))) as halted"
    " from runs r join work_items i on i.tenant_id = r.tenant_id and i.id = r.work_item_id"
    " where r.tenant_id = :tenant and r.id = :run"
)


async def read(session: AsyncSession, tenant_id: UUID, run_id: UUID) -> Row[Any] | None:
    """The run with its item, its lease's rest by the database's clock, and the halts that concern it."""
    connection = await session.connection()
    return (await connection.execute(_READ, {"tenant": tenant_id, "run": run_id})).one_or_none()
