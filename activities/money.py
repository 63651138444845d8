"""`reserve_budget`: hold the worst case, or say which budget is short."""

from __future__ import annotations

from temporalio import activity

from activities.signatures import ReserveOutput, WorkItemInput
from models.domain.principal import service_principal
from models.services import money
from models.services.operations import once
from models.storage.db import Database


class Money:
    """Reserves on budgets."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @activity.defn(name="reserve_budget")
    async def reserve_budget(self, given: WorkItemInput) -> ReserveOutput:
        """Hold the worst case on every budget that applies, all or nothing."""
        principal = service_principal("control", given.tenant_id)
        async with self._db.session_for(principal) as session:

            async def reserve() -> ReserveOutput:
                found = await money.reserve(session, principal, given.work_item_id)
                return ReserveOutput.model_validate(found.model_dump())

            return await once(session, given.tenant_id, given.op_id, ReserveOutput, reserve)
