"""Queries over runs. INVARIANT: whoever changes a run has locked its item before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.run import LEASE_GRACE_SECONDS, LEASE_SECONDS
from models.tables.execution import RunRow

LIVE = ("claimed", "running")


async def get(session: AsyncSession, run_id: UUID) -> RunRow | None:
    """One run, of any tenant that the session sees."""
    statement = select(RunRow).where(col(RunRow.id) == run_id).execution_options(populate_existing=True)
    return (await session.exec(statement)).one_or_none()


async def lock(session: AsyncSession, run_id: UUID) -> RunRow | None:
    """One run of the session's own tenant, locked until the transaction's end."""
    statement = (
        select(RunRow).where(col(RunRow.id) == run_id).with_for_update().execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def insert_if_new(session: AsyncSession, tenant_id: UUID, run_id: UUID, work_item_id: UUID) -> None:
    """Make a queued run unless it is there."""
    connection = await session.connection()
    await connection.execute(
        insert(RunRow)
        .values(tenant_id=tenant_id, id=run_id, work_item_id=work_item_id, status="queued", attempt=0, log_offset=0)
        .on_conflict_do_nothing(index_elements=["tenant_id", "id"])
    )


async def start_lease(session: AsyncSession, run: RunRow) -> None:
    """Let the lease count from now, by the database's clock."""
    connection = await session.connection()
    found = await connection.execute(
        text(
            "update runs set lease_until = clock_timestamp() + make_interval(secs => :lease),"
            " claimed_at = clock_timestamp() where tenant_id = :tenant and id = :id"
            " returning lease_until, claimed_at"
        ),
        {"lease": LEASE_SECONDS, "tenant": run.tenant_id, "id": run.id},
    )
    row = found.one()
    run.lease_until, run.claimed_at = row.lease_until, row.claimed_at


async def renew(
    session: AsyncSession, tenant_id: UUID, held: Sequence[tuple[UUID, int, UUID]]
) -> set[tuple[UUID, int]]:
    """Renew the leases of (run, attempt, runtime), each still held by exactly that; answers which.

    A lease that is over stays over, and a run that is to end is not kept alive.
    """
    connection = await session.connection()
    found = await connection.execute(
        text(
            "with mine as (select r.tenant_id, r.id from runs r"
            " join unnest(cast(:ids as uuid[]), cast(:attempts as integer[]), cast(:runtimes as uuid[]))"
            "  as held (id, attempt, runtime_id)"
            "  on r.id = held.id and r.attempt = held.attempt and r.runtime_id = held.runtime_id"
            " where r.tenant_id = :tenant and r.status in ('claimed', 'running') and r.kill_reason is null"
            "  and r.lease_until > clock_timestamp() order by r.id for update of r)"
            " update runs set lease_until = clock_timestamp() + make_interval(secs => :lease)"
            " from mine where runs.tenant_id = mine.tenant_id and runs.id = mine.id"
            " returning runs.id, runs.attempt"
        ),
        {
            "tenant": tenant_id,
            "ids": [run for run, _, _ in held],
            "attempts": [attempt for _, attempt, _ in held],
            "runtimes": [runtime for _, _, runtime in held],
            "lease": LEASE_SECONDS,
        },
    )
    return {(row.id, row.attempt) for row in found}


async def lease_is_over(session: AsyncSession, run: RunRow, grace: int = LEASE_GRACE_SECONDS) -> bool:
    """Whether the run's lease, and `grace` seconds after it, have passed by the database's clock."""
    connection = await session.connection()
    return bool(
        await connection.scalar(
            text("select cast(:until as timestamptz) + make_interval(secs => :grace) < clock_timestamp()"),
            {"until": run.lease_until, "grace": grace},
        )
    )


async def of_runtime(session: AsyncSession, runtime_id: UUID) -> list[RunRow]:
    """The live runs that the rows give to one runtime."""
    statement = (
        select(RunRow)
        .where(col(RunRow.runtime_id) == runtime_id, col(RunRow.status).in_(LIVE))
        .execution_options(populate_existing=True)
    )
    return list((await session.exec(statement)).all())


async def to_kill(session: AsyncSession, tenant_id: UUID) -> list[Row[Any]]:
    """The tenant's live runs that must end: (id, attempt, kill_reason), also those a message has not reached.

    A cancel request and a halt that kills count as they stand in their own rows, whatever became of their messages.
    """
    connection = await session.connection()
    found = await connection.execute(
        text(
            "select r.id, r.attempt, r.kill_reason, coalesce(r.kill_reason,"
            " case when i.cancel_requested_at is not null then 'cancelled' else 'halted' end) as reason, r.work_item_id"
            " from runs r join work_items i on i.tenant_id = r.tenant_id and i.id = r.work_item_id"
            " where r.tenant_id = :tenant and r.status in ('claimed', 'running')"
            " and (r.kill_reason is not null or i.cancel_requested_at is not null or exists (select 1 from halts h"
            "  where h.active and h.mode = 'kill' and (h.scope, h.key) in (('everything', 'everything'),"
            "  ('tenant', r.tenant_id::text), ('assistant', r.tenant_id::text || '/' || i.assistant_id::text))))"
        ),
        {"tenant": tenant_id},
    )
    return list(found)


async def specs_of_runtime(session: AsyncSession, tenant_id: UUID, runtime_id: UUID) -> list[dict[str, Any]]:
    """The specs of a runtime's live runs."""
    connection = await session.connection()
    found = await connection.execute(
        text(
            "select i.spec from runs r join work_items i on i.tenant_id = r.tenant_id and i.id = r.work_item_id"
            " where r.tenant_id = :tenant and r.runtime_id = :runtime and r.status in ('claimed', 'running')"
        ),
        {"tenant": tenant_id, "runtime": runtime_id},
    )
    return list(found.scalars())


async def input_digests(session: AsyncSession, tenant_id: UUID, runtime_id: UUID) -> set[str]:
    """Digests of the files that a runtime's live runs are given: their inputs, and what an earlier attempt saved."""
    connection = await session.connection()
    found = await connection.execute(
        text(
            "select f->>'sha256' from runs r join work_items i on i.tenant_id = r.tenant_id and i.id = r.work_item_id,"
            " lateral (select jsonb_array_elements(coalesce(i.spec->'inputs', '[]')) as f"
            "  union all select r.continuation->'state' where jsonb_typeof(r.continuation->'state') = 'object') files"
            " where r.tenant_id = :tenant and r.runtime_id = :runtime and r.status in ('claimed', 'running')"
        ),
        {"tenant": tenant_id, "runtime": runtime_id},
    )
    return set(found.scalars())
