"""Whoever holds Temporal's console still cannot make anything run: forged with Temporal's own command."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.e2e import work
from tests.e2e.client import User
from tests.e2e.forging import no_runtime, ran_once, still, waiting
from tests.e2e.polling import eventually
from tests.e2e.recount import Recount, expect_well
from tests.e2e.temporal_cli import TemporalCli, workflow_of
from workers.stack.stack import Stack

pytestmark = [
    pytest.mark.stack,
    pytest.mark.docker,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("cut_off"),  # its lease runs out beside these tests; see test_forged_runtimes
]


async def until_closed(temporal: TemporalCli, workflow_id: str, seconds: float = 90) -> str:
    """How a workflow closed, once it has."""

    async def closed() -> str:
        status = await temporal.status(workflow_id)
        return "" if status == "RUNNING" else status

    return await eventually(closed, seconds, f"{workflow_id} closed")


async def told(temporal: TemporalCli, workflow_id: str, recount: Recount, item_id: UUID) -> bool:
    """Tell the workflow to look again; whether its item runs or has run."""
    if "run.started" in recount.kinds(item_id):
        return True
    await temporal.signal(workflow_id)
    return False


async def pending(temporal: TemporalCli, workflow_id: str, activity_type: str) -> str:
    """Id of a pending activity, once there is one."""

    async def found() -> str:
        all_pending = await temporal.pending(workflow_id)
        named = [str(each["activityId"]) for each in all_pending if each["activityType"]["name"] == activity_type]
        return named[0] if named else ""

    return await eventually(found, 60, f"{activity_type} pending in {workflow_id}")


async def test_a_signal_decides_nothing(alice: User, anton: User, temporal: TemporalCli, recount: Recount) -> None:
    item = await waiting(alice)
    workflow = workflow_of(item.tenant_id, item.id)
    for name, given in (("look_again", None), ("look_again", {"status": "approved"}), ("approve", {"by": "anton"})):
        await temporal.signal(workflow, name, given)
    (approval,) = recount.rows("SELECT id FROM approvals WHERE work_item_id = %(item)s", item=item.id)
    await temporal.signal(f"approval/{approval['id']}", "look_again", {"status": "approved"})
    await still(recount, item.id, "awaiting_approval")
    await anton.decide(await anton.approval_of(item.id))
    await ran_once(alice, item.id, recount)


async def test_a_forged_start_runs_nothing_that_was_not_approved(
    alice: User, anton: User, temporal: TemporalCli, recount: Recount
) -> None:
    item = await waiting(alice)
    twin, nobody, foreign = (f"forged/{uuid4()}" for _ in range(3))
    given = {"tenant_id": str(item.tenant_id), "work_item_id": str(item.id)}
    await temporal.start("WorkItemWorkflow", twin, given)
    await temporal.start("WorkItemWorkflow", nobody, {**given, "work_item_id": str(uuid4())})
    # An item of Acme under another company's name is no item at all.
    (globex,) = recount.rows("SELECT tenant_id FROM tenants WHERE slug = 'globex'")
    await temporal.start("WorkItemWorkflow", foreign, {**given, "tenant_id": str(globex["tenant_id"])})
    await still(recount, item.id, "awaiting_approval")
    for forged in (twin, nobody, foreign):
        assert await until_closed(temporal, forged) == "FAILED"
    await anton.decide(await anton.approval_of(item.id))
    await ran_once(alice, item.id, recount)


async def test_activities_called_by_hand_recompute_everything(
    alice: User, anton: User, temporal: TemporalCli, recount: Recount
) -> None:
    item = await waiting(alice)
    run_id = recount.value("SELECT spec->>'run_id' FROM work_items WHERE id = %(item)s", item=item.id)
    given: dict[str, Any] = {"tenant_id": str(item.tenant_id), "work_item_id": str(item.id)}
    run = {"run_id": run_id, "attempt": 1}

    def step(**more: Any) -> dict[str, Any]:
        return {**given, "op_id": f"forged/{uuid4()}", **more}

    tried = [
        await temporal.execute_activity("queue_run", step()),
        await temporal.execute_activity("mint_warrant", step()),
        await temporal.execute_activity("finish_work_item", step()),
        await temporal.execute_activity("close_work_item", step(status="succeeded", reason="it went well")),
        await temporal.execute_activity("end_lost_run", step(**run)),
        await temporal.execute_activity("place_run", step(**run), queue=f"run/{item.tenant_id}"),
    ]
    assert "may not be queued" in tried[0]
    assert '"minted"' not in tried[1]
    assert '"placed"' not in tried[5]
    await still(recount, item.id, "awaiting_approval")
    await anton.decide(await anton.approval_of(item.id))
    await ran_once(alice, item.id, recount)


async def test_a_completed_activity_is_not_believed(
    alice: User, armin: User, temporal: TemporalCli, recount: Recount
) -> None:
    asked = await alice.submit(work.item(await work.sleeper(alice), parameters={"seconds": 6}))
    await alice.begun(asked.id)
    workflow = workflow_of(asked.tenant_id, asked.id)
    following = await pending(temporal, workflow, "follow_run")
    await temporal.complete_activity(workflow, following, {"state": "ended", "outcome": "succeeded", "words": "forged"})
    # The run goes on, its hold too, and its real end is what is recorded.
    (held,) = recount.rows("SELECT phase FROM reservations WHERE work_item_id = %(item)s", item=asked.id)
    assert held["phase"] == "claimed"
    await ran_once(alice, asked.id, recount)


async def test_a_placement_that_never_was_is_not_believed(
    stack: Stack, alice: User, temporal: TemporalCli, recount: Recount
) -> None:
    async with no_runtime(stack, alice, recount) as asked:
        workflow = workflow_of(asked.tenant_id, asked.id)
        placing = await pending(temporal, workflow, "place_run")
        await temporal.complete_activity(workflow, placing, {"state": "placed", "words": "forged"})
        run = recount.rows("SELECT * FROM runs WHERE work_item_id = %(item)s", item=asked.id)[0]
        assert (run["status"], run["attempt"]) == ("queued", 0)
    # The forgery delays: the workflow looks again after five minutes by itself, or when told.
    await eventually(lambda: told(temporal, workflow, recount, asked.id), 120, "the run is placed after all")
    await ran_once(alice, asked.id, recount)


async def test_a_reset_runs_nothing_again(alice: User, temporal: TemporalCli, recount: Recount) -> None:
    asked = await alice.submit(work.item(await work.sleeper(alice), parameters={"seconds": 6}))
    await alice.begun(asked.id)
    workflow = workflow_of(asked.tenant_id, asked.id)
    for kind in ("FirstWorkflowTask", "LastWorkflowTask", "FirstWorkflowTask"):
        await temporal.reset(workflow, kind)
    await ran_once(alice, asked.id, recount)
    # And once more after the end.
    await temporal.reset(workflow)
    assert await until_closed(temporal, workflow) == "COMPLETED"
    assert recount.kinds(asked.id).count("run.started") == 1
    expect_well(recount, [asked.id])
