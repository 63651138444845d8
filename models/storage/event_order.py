"""The order of a work item's live timeline: events collected in a session, written just before its audit events.

INVARIANT: the head's row lock is held from the giving of a seq to the commit, so seqs become visible in their order,
and a reader that asks for what comes after the last one it saw misses nothing. Heads are locked in sorted order, after
every other row and before the audit head, so a caller may tell of an event at any point of its transaction.
INVARIANT: nothing comes into the timeline without the redactor of what its item's run was given.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.events import ItemEvent
from models.rules import event_data

log = structlog.get_logger("event_order")

_TAKE = text(
    "insert into item_event_heads (tenant_id, work_item_id, seq) values (:tenant, :item, :count)"
    " on conflict (tenant_id, work_item_id) do update set seq = item_event_heads.seq + :count returning seq"
)
_ENVIRONMENT = text("select spec -> 'env' from work_items where tenant_id = :tenant and id = :item")
_GIVE_BACK = text("update item_event_heads set seq = :seq where tenant_id = :tenant and work_item_id = :item")
_TOLD = text(
    "select source from item_events where tenant_id = :tenant and work_item_id = :item and source = any(:sources)"
)
_INSERT = text(
    "insert into item_events (tenant_id, work_item_id, seq, at, kind, source, data) values"
    " (:tenant, :item, :seq, coalesce(cast(:at as timestamptz), clock_timestamp()), :kind, :source,"
    " cast(:data as jsonb))"
)


def append_event(session: AsyncSession, event: ItemEvent) -> None:
    """Remember `event` for the end of this transaction."""
    cast("list[ItemEvent]", session.info.setdefault("item_events", [])).append(event)


async def write_events(session: AsyncSession) -> None:
    """Give the remembered events their places; those whose source was told before are left out."""
    events = cast("list[ItemEvent]", session.info.pop("item_events", []))
    if not events:
        return
    await session.flush()
    tenant_id = cast("UUID", session.info["tenant_id"])
    connection = await session.connection()
    for item in sorted({event.work_item_id for event in events}):
        await _write(connection, tenant_id, item, _once([event for event in events if event.work_item_id == item]))


def _once(events: Sequence[ItemEvent]) -> list[ItemEvent]:
    seen: set[str] = set()
    kept: list[ItemEvent] = []
    for event in events:
        if event.source is None or event.source not in seen:
            kept.append(event)
        if event.source is not None:
            seen.add(event.source)
    return kept


async def _write(connection: AsyncConnection, tenant_id: UUID, item: UUID, events: list[ItemEvent]) -> None:
    keys: dict[str, Any] = {"tenant": tenant_id, "item": item}
    found = (await connection.execute(_ENVIRONMENT, keys)).one_or_none()
    if found is None:
        # What is being done is not to fail for a timeline that is not this tenant's.
        log.warning("events_of_no_item", work_item=str(item), kinds=sorted({event.kind.value for event in events}))
        return
    hiding = event_data.redactor(event_data.secrets_in(cast("dict[str, str] | None", found[0]) or {}))
    seq: int = (await connection.execute(_TAKE, {**keys, "count": len(events)})).scalar_one() - len(events)
    sources = [event.source for event in events if event.source is not None]
    if sources:
        told = set((await connection.execute(_TOLD, {**keys, "sources": sources})).scalars())
        fresh = [event for event in events if event.source is None or event.source not in told]
        if len(fresh) < len(events):
            # Nothing saw the seqs that were taken: the order has no holes.
            await connection.execute(_GIVE_BACK, {**keys, "seq": seq + len(fresh)})
        events = fresh
    rows = [
        {
            **keys,
            "seq": seq + place,
            "at": event.at,
            "kind": event.kind.value,
            "source": event.source,
            "data": json.dumps(event_data.shown(event.data, hiding), ensure_ascii=False, allow_nan=False),
        }
        for place, event in enumerate(events, 1)
    ]
    if rows:
        await connection.execute(_INSERT, rows)
