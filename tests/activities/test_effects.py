"""Effects that have no workflow are begun anew; what is done is found by nobody."""

from __future__ import annotations

import itertools
from typing import cast
from uuid import UUID

import pytest

from activities.reconcile import Reconciliation, WorkflowEyes
from activities.signatures import ReconcileInput
from models.storage.db import Database
from tests.fixtures.effects import Outside
from tests.fixtures.runs import tamper


class Eyes:
    """Sees these workflows run, and no other; starts what it is told to."""

    def __init__(self, *running: UUID) -> None:
        self.running = set(running)
        self.started: list[UUID] = []

    async def describe_effect(self, tenant_id: UUID, action_id: UUID) -> str:
        return "running" if action_id in self.running else "terminated"

    async def start_effect(self, tenant_id: UUID, action_id: UUID) -> bool:
        self.started.append(action_id)
        return True


async def test_open_effects_without_a_workflow_are_begun_anew(outside: Outside, system_db: Database) -> None:
    await outside.connector()
    done, waiting, runs, fresh = [await outside.permitted(f"/{name}") for name in ("done", "waiting", "runs", "fresh")]
    await outside.through(done)
    ago = "clock_timestamp() - interval '1 min'"
    tamper(outside.database, f"update actions set updated_at = {ago} where id <> %s", fresh)
    eyes = Eyes(runs)
    reconciliation = Reconciliation(outside.db, system_db, cast("WorkflowEyes", eyes))
    found = await reconciliation.reconcile_effects(ReconcileInput())
    assert (found.seen, found.started) == (2, 1)
    assert eyes.started == [waiting]


async def test_a_worker_that_stood_still_sends_nothing_that_was_given_up(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the try's commit and its request nothing is known of it: it may be `unknown`, and tried again, by now."""
    await outside.connector()
    action_id = await outside.permitted("/pay")
    moments = itertools.count(0, 100)
    monkeypatch.setattr("activities.effects._now", lambda: float(next(moments)))
    await outside.mint(action_id)
    assert "stood still" in await outside.perform(action_id)
    assert outside.receiver.seen == []
    monkeypatch.undo()
    assert (await outside.through(action_id)).status == "performed"
    assert [row.state for row in await outside.tries(action_id)] == ["failed", "performed"]
    assert len(outside.receiver.seen) == 1
