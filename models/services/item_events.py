"""Reading a work item's live timeline as it comes; resumable after any seq, and whole without Redis."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.principal import Principal
from models.domain.work_item import WorkItemStatus
from models.repositories import item_events as rows
from models.repositories import paging
from models.services import work_items
from models.storage.cache import Bell, Cache
from models.storage.db import Database
from models.tables.events import ItemEventRow
from models.tables.work import WorkItemRow

POLL_SECONDS = 1.0


async def page(
    session: AsyncSession, principal: Principal, work_item_id: UUID, after: int, limit: int
) -> list[ItemEventRow]:
    """The item's events after `after`, in order. Raises `NotFound` where the principal's company sees no such item."""
    await work_items.read(session, principal, work_item_id)
    return await rows.after(session, work_item_id, after, paging.page_size(limit))


async def follow(
    db: Database, cache: Cache | None, principal: Principal, item: WorkItemRow, after: int
) -> AsyncGenerator[Sequence[ItemEventRow]]:
    """Yield the events after `after` as they come, until the item is final and all was yielded.

    Yields nothing (an empty sequence) at each look that found nothing new, so that its reader can say that it lives.
    """
    async with _bell(cache, item.tenant_id, f"item:{item.id}") as bell:
        while True:
            async with db.session_for(principal) as session:
                # The item before its events: what made it final is then certain to be among them.
                seen = await work_items.read(session, principal, item.id)
                found = await rows.after(session, item.id, after, paging.MAX_PAGE)
            if found:
                after = found[-1].seq
            elif WorkItemStatus(seen.status).is_final:
                return
            yield found
            if not found:
                await bell.wait(POLL_SECONDS)


@asynccontextmanager
async def _bell(cache: Cache | None, tenant_id: UUID, channel: str) -> AsyncGenerator[Bell]:
    if cache is None:
        yield Bell()
        return
    async with cache.listen(tenant_id, channel) as bell:
        yield bell
