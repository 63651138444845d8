"""The steps of a work item's life: each is one transaction, done once, that answers the item as it stands now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from pydantic import BaseModel
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio import activity

from activities.model_calls import with_models_closed
from activities.signatures import CloseInput, WorkItemInput, WorkItemView
from models.domain.principal import Principal, service_principal
from models.services import assessment, lifecycle, runs, settlement, work_items
from models.services.llm_closing import ModelCloser
from models.services.operations import once
from models.storage.db import Database

Act = Callable[[AsyncSession, Principal], Awaitable[object]]


class Done(BaseModel):
    """What `operations` remembers of a step: that it was done. What is so now is always read again."""

    done: bool = True


class WorkItems:
    """Assess, queue, finish, close, read."""

    def __init__(self, db: Database, closer: ModelCloser | None = None) -> None:
        self._db = db
        self._closer = closer or ModelCloser(db, None)

    @activity.defn(name="assess_work_item")
    async def assess_work_item(self, given: WorkItemInput) -> WorkItemView:
        """Score the risk by the pinned policy version and write the assessment (once)."""
        return await self._once(given, lambda session, who: assessment.assess(session, who, given.work_item_id))

    @activity.defn(name="read_work_item")
    async def read_work_item(self, given: WorkItemInput) -> WorkItemView:
        """Read what PostgreSQL holds."""
        async with self._db.session_for(service_principal("control", given.tenant_id)) as session:
            return await self._view(session, given.work_item_id)

    @activity.defn(name="queue_run")
    async def queue_run(self, given: WorkItemInput) -> WorkItemView:
        """Move the item to `queued` and make its run's row."""
        return await self._once(given, lambda session, who: runs.queue_run(session, who, given.work_item_id))

    @activity.defn(name="finish_work_item")
    async def finish_work_item(self, given: WorkItemInput) -> WorkItemView:
        """Settle the cost, take the outcome over, end the item (once)."""
        return await self._once(given, lambda session, who: settlement.finish(session, who, given.work_item_id))

    @activity.defn(name="close_work_item")
    async def close_work_item(self, given: CloseInput) -> WorkItemView:
        """End the item without a (further) run, or have its live run killed."""
        return await self._once(
            given,
            lambda session, who: lifecycle.close(session, who, given.work_item_id, given.status, given.reason),
        )

    @activity.defn(name="note_cancel")
    async def note_cancel(self, given: CloseInput) -> WorkItemView:
        """Write a cancellation that was asked of Temporal down like any other."""
        return await self._once(
            given, lambda session, who: work_items.note_cancel(session, who, given.work_item_id, given.reason)
        )

    async def _once(self, given: WorkItemInput | CloseInput, act: Act) -> WorkItemView:
        return await with_models_closed(
            self._closer, given.tenant_id, given.work_item_id, lambda: self._transaction(given, act)
        )

    async def _transaction(self, given: WorkItemInput | CloseInput, act: Act) -> WorkItemView:
        principal = service_principal("control", given.tenant_id)
        async with self._db.session_for(principal) as session:

            async def do() -> Done:
                await act(session, principal)
                return Done()

            await once(session, given.tenant_id, given.op_id, Done, do)
            return await self._view(session, given.work_item_id)

    async def _view(self, session: AsyncSession, work_item_id: UUID) -> WorkItemView:
        return await work_items.view(session, work_item_id)
