"""The end of a work item whose run has ended: its cost, its outcome, its record."""

from __future__ import annotations

from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.principal import Principal
from models.tables.work import WorkItemRow


async def finish(session: AsyncSession, principal: Principal, work_item_id: UUID) -> WorkItemRow:
    """Settle the cost, take the run's outcome over and close the item; repeatable.

    Raises:
        NotFound: There is no such item.
        Conflict: Its run has not ended.
    """
    raise NotImplementedError
