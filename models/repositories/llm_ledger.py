"""Queries over what of a reservation was opened for model calls, and over the ledger of calls."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.storage.db import Database
from models.tables.llm import LlmChargeRow, LlmOpeningRow


async def opening(session: AsyncSession, tenant_id: UUID, reservation_id: UUID) -> LlmOpeningRow | None:
    """The opening of a reservation, not locked."""
    statement = (
        select(LlmOpeningRow)
        .where(col(LlmOpeningRow.tenant_id) == tenant_id, col(LlmOpeningRow.reservation_id) == reservation_id)
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def lock_opening(session: AsyncSession, tenant_id: UUID, reservation_id: UUID) -> LlmOpeningRow | None:
    """The same, locked until the transaction's end. INVARIANT: whoever changes it has locked the item before."""
    statement = (
        select(LlmOpeningRow)
        .where(col(LlmOpeningRow.tenant_id) == tenant_id, col(LlmOpeningRow.reservation_id) == reservation_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


@dataclass(frozen=True)
class OpenOne:
    """An opening that is not closed, and for how long the run has not been heard."""

    reservation_id: UUID
    identity: str
    opened_at: datetime
    silent_seconds: float


async def open_of_item(session: AsyncSession, tenant_id: UUID, work_item_id: UUID) -> list[OpenOne]:
    """The item's openings that are not closed."""
    connection = await session.connection()
    found = await connection.execute(
        text(
            "select o.reservation_id, o.redis_run_id, o.opened_at, coalesce(extract(epoch from clock_timestamp()"
            "  - coalesce(r.ended_at, r.lease_until, o.opened_at)), 0)::float8 as silent"
            " from llm_openings o left join runs r on r.tenant_id = o.tenant_id and r.id = o.run_id"
            " where o.tenant_id = :tenant and o.work_item_id = :item and o.closed_at is null"
        ),
        {"tenant": tenant_id, "item": work_item_id},
    )
    return [OpenOne(row.reservation_id, row.redis_run_id, row.opened_at, row.silent) for row in found]


async def charged(session: AsyncSession, tenant_id: UUID, reservation_id: UUID) -> int:
    """The ledger's sum for a reservation."""
    statement = select(func.coalesce(func.sum(col(LlmChargeRow.amount_nano)), 0)).where(
        col(LlmChargeRow.tenant_id) == tenant_id, col(LlmChargeRow.reservation_id) == reservation_id
    )
    return int((await session.exec(statement)).one())


async def share_openings(session: AsyncSession, tenant_id: UUID, reservations: Iterable[UUID]) -> dict[UUID, bool]:
    """Which of these have an opening, and whether it is closed; none changes until the transaction's end."""
    statement = (
        select(LlmOpeningRow.reservation_id, LlmOpeningRow.closed_at)
        .where(col(LlmOpeningRow.tenant_id) == tenant_id, col(LlmOpeningRow.reservation_id).in_(set(reservations)))
        .with_for_update(read=True)
    )
    return {reservation: closed_at is not None for reservation, closed_at in (await session.exec(statement)).all()}


_ADD = text(
    "insert into llm_charges (tenant_id, call_id, attempt, reservation_id, work_item_id, run_id, assistant_id, model,"
    "  card_version, prices, tokens, held_nano, amount_nano, kind, upstream_id, upstream_status, streamed, detail,"
    "  started_at, ended_at)"
    " select tenant_id, call_id, attempt, reservation_id, work_item_id, run_id, assistant_id, model, card_version,"
    "  prices, tokens, held_nano, amount_nano, kind, upstream_id, upstream_status, streamed, detail, started_at,"
    "  ended_at"
    " from jsonb_to_recordset(cast(:rows as jsonb)) as new(tenant_id uuid, call_id uuid, attempt integer,"
    "  reservation_id uuid, work_item_id uuid, run_id uuid, assistant_id uuid, model text, card_version integer,"
    "  prices jsonb, tokens jsonb, held_nano bigint, amount_nano bigint, kind text, upstream_id text,"
    "  upstream_status integer, streamed boolean, detail text, started_at timestamptz, ended_at timestamptz)"
    " on conflict (tenant_id, call_id, attempt) do nothing returning call_id, attempt"
)


async def add(session: AsyncSession, rows: list[dict[str, Any]]) -> set[tuple[UUID, int]]:
    """Add charges that are not there yet, in one statement; answers which were added, by (call, attempt)."""
    connection = await session.connection()
    found = await connection.execute(_ADD, {"rows": json.dumps(rows)})
    return {(row.call_id, row.attempt) for row in found}


async def charges(session: AsyncSession, tenant_id: UUID, work_item_id: UUID, limit: int = 1000) -> list[LlmChargeRow]:
    """The ledger's rows of an item, oldest first."""
    statement = (
        select(LlmChargeRow)
        .where(col(LlmChargeRow.tenant_id) == tenant_id, col(LlmChargeRow.work_item_id) == work_item_id)
        .order_by(col(LlmChargeRow.started_at), col(LlmChargeRow.call_id))
        .limit(limit)
    )
    return list((await session.exec(statement)).all())


async def left_open(system: Database, limit: int) -> list[tuple[UUID, UUID]]:
    """(tenant, item) of openings whose item has ended without closing them."""
    rows = await system.rows(
        """select distinct o.tenant_id, o.work_item_id from llm_openings o
             join work_items w on w.tenant_id = o.tenant_id and w.id = o.work_item_id
            where o.closed_at is null and w.ended_at is not null limit :limit""",
        limit=limit,
    )
    return [(row["tenant_id"], row["work_item_id"]) for row in rows]
