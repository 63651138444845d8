"""Queueing a run, reading it, asking for its end."""

from __future__ import annotations

from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.principal import Principal
from models.tables.execution import RunRow
from sandbox.link.messages import KillReason


async def queue_run(session: AsyncSession, principal: Principal, work_item_id: UUID) -> RunRow:
    """Move the item to `queued` and make its run's row (id = `spec.run_id`); repeatable.

    Raises:
        NotFound: There is no such item.
        Conflict: The item is final, or its level needs an approval that it does not have.
    """
    raise NotImplementedError


async def request_kill(
    session: AsyncSession, principal: Principal, work_item_id: UUID, reason: KillReason
) -> bool:
    """Write on the item's open run that it must end, and have its broker told; True if there is such a run.

    `work_items.request_cancel` and `halt` call this; the first reason stands. A queued run is not touched: closing the item
    ends it.
    """
    raise NotImplementedError
