"""What an action leaves in the outbox reaches the workflow engine, also where no work item is behind it."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from models.domain.approval import Verdict
from models.repositories import dispatch as rows
from models.services import approvals
from models.services.dispatch import Dispatcher, WorkflowTeller
from models.storage.db import Database
from tests.fixtures.agents import add_connector, ask, elsewhere, request, running
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.work import Work


class Teller:
    """Takes everything, and remembers what it was told of actions."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    async def start_approval(self, tenant_id: UUID, work_item_id: UUID | None, approval_id: UUID) -> bool:
        self.told.append(("approval", (work_item_id, approval_id)))
        return True

    async def start_effect(self, tenant_id: UUID, action_id: UUID) -> bool:
        self.told.append(("effect", action_id))
        return True

    async def _nothing(self, *_named: UUID) -> bool:
        return True

    start_work_item = signal_work_item = signal_approval = start_delivery = _nothing


async def test_approvals_and_effects_are_started(
    db: Database, system_db: Database, database: TestDatabase, acme: Company, work: Work
) -> None:
    await add_connector(db, database, acme)
    item, caller = await running(db, work, acme)
    effect = {"connector": "hooks", "path": "/", "json": {}}
    inside, outside = await ask(db, caller, request(effect=effect)), await ask(db, elsewhere(acme))
    await approvals.decide(db, acme.approver, None, cast("UUID", inside.approval_id), verdict=Verdict.APPROVE)
    teller = Teller()
    dispatcher = Dispatcher(db, system_db, cast("WorkflowTeller", teller), None)
    for entry in await rows.take_due(system_db, 50):
        await dispatcher.dispatch(entry)
    assert sorted(teller.told, key=str) == sorted(
        [
            ("approval", (item.id, inside.approval_id)),
            ("approval", (None, outside.approval_id)),
            ("effect", inside.id),
        ],
        key=str,
    )
