"""Telling a work item's live timeline what happens, in the transaction in which it happens.

Events are for watching; what must be proven is audited. What is audited of an item, its runs and approvals stands in
the timeline by that (`models/services/audit.py`); the rest is told here. Events are written when the transaction
commits, just before its audit events (`models/storage/event_order.py`), so one may be told of at any point of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.events import EventKind, ItemEvent
from models.storage.cache import Cache
from models.storage.event_order import append_event


async def add(
    session: AsyncSession,
    tenant_id: UUID,
    work_item_id: UUID,
    kind: EventKind,
    data: Mapping[str, Any],
    *,
    source: str | None = None,
    at: datetime | None = None,
) -> None:
    """Tell the item's timeline of one event; whoever commits may `ring` then.

    Args:
        session: The transaction in which it happens.
        tenant_id: The item's, to which the session is bound.
        work_item_id: In whose timeline it stands.
        kind: What it tells of.
        data: JSON values of at most 16 KiB; what is larger is cut, and says so (`cut`). Injected secrets are hidden.
        source: Names what is told (`run/<id>/1/ended`), so that a repeat is no second event.
        at: When it happened; by default when it is written.
    """
    event = ItemEvent(work_item_id=work_item_id, kind=kind, data=dict(data), source=source, at=at)
    await add_many(session, tenant_id, [event])


async def add_many(session: AsyncSession, tenant_id: UUID, events: Iterable[ItemEvent]) -> None:
    """The same for several, in this order.

    Raises:
        RuntimeError: The session is bound to another tenant: its events could not be written.
    """
    if session.info.get("tenant_id") != tenant_id:
        raise RuntimeError("an event is told in a session of its own tenant")
    for event in events:
        append_event(session, event)


async def ring(cache: Cache | None, tenant_id: UUID, work_item_id: UUID) -> None:
    """Wake who watches the item, after the commit; best effort, readers poll behind it."""
    if cache is not None:
        await cache.publish(tenant_id, f"item:{work_item_id}")
