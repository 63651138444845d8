"""Two writes are never hoped for: what must reach another system after the commit is written in the transaction."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast
from uuid import UUID

from sqlalchemy import func
from sqlmodel.ext.asyncio.session import AsyncSession

from models.services.ids import new_id
from models.tables.records import OutboxRow


class OutboxKind(StrEnum):
    """What the relay knows to send."""

    START_WORK_ITEM = "start_work_item"
    SIGNAL_WORK_ITEM = "signal_work_item"
    SIGNAL_APPROVAL = "signal_approval"
    START_APPROVAL = "start_approval"
    """Of an action or a staged set: no workflow of a work item starts it as its child."""
    PERFORM_EFFECT = "perform_effect"
    BUDGET_CHANGED = "budget_changed"
    HALT_CHANGED = "halt_changed"
    KILL_RUN = "kill_run"
    WEBHOOK = "webhook"


def enqueue(
    session: AsyncSession,
    tenant_id: UUID,
    kind: OutboxKind,
    payload: dict[str, Any],
    *,
    delay: timedelta = timedelta(0),
) -> UUID:
    """Add an entry, sent at least once after this transaction; returns its id (the receiver's idempotency key).

    Args:
        session: The transaction in which it becomes due.
        tenant_id: Whose it is.
        kind: What the relay does with it.
        payload: Ids and small values.
        delay: How long to leave it, for what usually gets there by a quicker way.
    """
    entry = OutboxRow(tenant_id=tenant_id, id=new_id(), kind=kind, payload=payload)
    if delay:
        entry.due_at = cast("datetime", func.now() + delay)  # by the database's clock
    session.add(entry)
    return entry.id
