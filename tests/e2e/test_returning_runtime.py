"""A runtime that was cut off past its lease comes back: nothing runs twice, and nothing runs without right."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import docker
import pytest

from models.domain.run import LEASE_GRACE_SECONDS, LEASE_SECONDS
from tests.e2e import work
from tests.e2e.client import Console, User
from tests.e2e.cut_off import OWNER, CutOff
from tests.e2e.polling import eventually
from tests.e2e.recount import Recount, expect_well
from workers.stack.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.docker, pytest.mark.timeout(600)]


async def test_a_runtime_that_was_cut_off_comes_back_to_nothing(
    stack: Stack, console: Console, cut_off: CutOff, recount: Recount
) -> None:
    henry = console.user(OWNER)
    failed = await henry.until(cut_off.once, {"failed"}, 240)
    await henry.until(cut_off.again, {"queued"}, 60)
    assert (failed.outcome, failed.attempt) == ("runtime_gone", 1)
    assert failed.ended_at is not None
    # The last heartbeat was at most 30 s old and may still have been taken for a renewal up to 20 s later.
    gone_after = (failed.ended_at - cut_off.frozen_at).total_seconds()
    assert gone_after >= LEASE_SECONDS + LEASE_GRACE_SECONDS - 30
    # Nobody was there to kill the sandboxes: their guests count the lease too, and were first.
    sql = "SELECT id FROM runs WHERE work_item_id = ANY(%(items)s)"
    runs = [row["id"] for row in recount.rows(sql, items=[cut_off.once, cut_off.again])]
    ends = ends_of_containers(stack, runs)
    assert len(ends) == 2
    for ended_at in ends:
        assert ended_at < failed.ended_at - timedelta(seconds=LEASE_GRACE_SECONDS - 5)
    before = [f"{(failed.ended_at - ended_at).total_seconds():.0f}" for ended_at in ends]
    print(f"gone {gone_after:.0f} s after it froze; the sandboxes had ended {' and '.join(before)} s before")

    cut_off.thaw()
    await henry.until(cut_off.again, lambda item: item.status == "running" and item.attempt == 2, 120)
    await eventually(lambda: two_nonces(henry, cut_off.again), 90, "the second attempt says something")
    await henry.cancel(cut_off.again)
    await henry.until(cut_off.again, {"cancelled"}, 60)

    # What the runtime had to say of attempts that were not its any more is audited, and changes nothing.
    stale = "SELECT count(*) FROM audit_events WHERE kind = 'run.stale_runtime' AND subject = ANY(%(runs)s)"
    subjects = [f"run/{run}" for run in runs]
    await eventually(lambda: recount.value(stale, runs=subjects) >= 1, 60, "the stale runtime is audited")
    assert (await henry.item(cut_off.once)).outcome == "runtime_gone"
    assert len(work.Executions.of(await henry.output(cut_off.once)).nonces) == 1
    attempts = recount.rows(
        "SELECT attempt, count(*) AS claims FROM warrants WHERE work_item_id = %(item)s AND claimed_at IS NOT NULL"
        " GROUP BY attempt ORDER BY attempt",
        item=cut_off.again,
    )
    assert [(row["attempt"], row["claims"]) for row in attempts] == [(1, 1), (2, 1)]
    expect_well(recount, [cut_off.once, cut_off.again])


def ends_of_containers(stack: Stack, runs: list[UUID]) -> list[datetime]:
    """When these runs' containers ended, by the engine; one that runs is an error."""
    client = docker.DockerClient(base_url=stack.engine.host, timeout=30)
    try:
        filters = [{"label": f"awgp.run={run}"} for run in runs]
        found = [each for wanted in filters for each in client.containers.list(all=True, filters=wanted)]
        states: list[dict[str, Any]] = [client.api.inspect_container(str(container.id))["State"] for container in found]
    finally:
        client.close()
    assert not any(state["Running"] for state in states), states
    return [datetime.fromisoformat(state["FinishedAt"][:19] + "+00:00") for state in states]


async def two_nonces(user: User, item_id: UUID) -> bool:
    return len(work.Executions.of(await user.output(item_id)).nonces) == 2
