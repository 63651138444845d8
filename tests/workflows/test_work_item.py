from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.testing import WorkflowEnvironment

from activities import signatures as act
from models.domain.approval import ApprovalStatus
from models.domain.risk import RiskLevel
from models.domain.work_item import WorkItemStatus as S
from tests.workflows.conftest import clock_runs, tenant_queue_worker, until_scheduled, until_timer, workers
from tests.workflows.world import World, in_
from workflows.names import approval_workflow_id, work_item_workflow_id
from workflows.work_item import WorkItemWorkflow


def handle_of(env: WorkflowEnvironment, world: World) -> WorkflowHandle[WorkItemWorkflow, act.WorkItemView]:
    return env.client.get_workflow_handle_for(
        WorkItemWorkflow.run, work_item_workflow_id(world.tenant_id, world.work_item_id)
    )


async def result(env: WorkflowEnvironment, world: World) -> act.WorkItemView:
    """The workflow's result; the time-skipping server's clock runs while it is awaited."""
    async with asyncio.timeout(60), clock_runs(env):
        return await handle_of(env, world).result()


async def ended(env: WorkflowEnvironment, world: World) -> S:
    view = await result(env, world)
    assert view.status is world.status
    assert world.terminal == 1, "an item ends exactly once"
    return world.status


async def test_l1_runs_by_itself(skipping: WorkflowEnvironment) -> None:
    world = World()
    async with workers(skipping.client, world) as gateway:
        assert await gateway.start_work_item(world.tenant_id, world.work_item_id)
        assert await ended(skipping, world) is S.SUCCEEDED
        assert not await gateway.start_work_item(world.tenant_id, world.work_item_id), "closed: never started again"
    assert world.steps == ["assess", "reserve", "queue", "mint", "place", "follow", "finish"]


@pytest.mark.parametrize(
    ("verdict", "end"),
    [
        (ApprovalStatus.APPROVED, S.SUCCEEDED),
        (ApprovalStatus.REJECTED, S.REJECTED),
        (ApprovalStatus.CANCELLED, S.CANCELLED),
    ],
)
async def test_l3_waits_for_the_decision(skipping: WorkflowEnvironment, verdict: ApprovalStatus, end: S) -> None:
    world = World(level=RiskLevel.L3)
    async with workers(skipping.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        await world.saw("awaiting_approval").wait()
        world.approval = verdict
        await gateway.signal_work_item(world.tenant_id, world.work_item_id)
        await gateway.signal_approval(world.approval_id)
        assert await ended(skipping, world) is end
        async with clock_runs(skipping):
            child = await skipping.client.get_workflow_handle(approval_workflow_id(world.approval_id)).result()
        assert child["status"] == verdict.value
    assert world.asked["place"] == (1 if end is S.SUCCEEDED else 0)


async def test_l3_reminds_and_expires(skipping: WorkflowEnvironment) -> None:
    now = await skipping.get_current_time()
    world = World(
        level=RiskLevel.L3,
        expires_at=now + timedelta(days=3),
        remind_at=(now + timedelta(days=1), now + timedelta(days=2)),
    )
    async with workers(skipping.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        assert await ended(skipping, world) is S.EXPIRED
        assert await skipping.get_current_time() >= world.expires_at
    assert (world.asked["remind"], world.asked["place"]) == (2, 0)


async def test_a_lost_signal_delays_and_no_more(skipping: WorkflowEnvironment) -> None:
    world = World(level=RiskLevel.L3)
    async with workers(skipping.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        await world.saw("awaiting_approval").wait()
        world.approval = ApprovalStatus.APPROVED
        assert await ended(skipping, world) is S.SUCCEEDED


async def test_a_signal_without_a_decision_makes_nothing_run(real: WorkflowEnvironment) -> None:
    world = World(level=RiskLevel.L3)
    async with workers(real.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        await world.saw("awaiting_approval").wait()
        for _ in range(3):
            world.saw("awaiting_approval").clear()
            await gateway.signal_work_item(world.tenant_id, world.work_item_id)
            await world.saw("awaiting_approval").wait()
        assert world.asked["mint"] == world.asked["place"] == 0
        shown = (await handle_of(real, world).query("__temporal_workflow_metadata")).current_details
        assert f"awgp approve {world.approval_id}" in shown
        assert "one approver of Acme" in shown
        assert "20 points" in shown


async def test_waits_for_money_and_goes_on_when_told(real: WorkflowEnvironment) -> None:
    world = World(money=False, budget_retry_at=in_(3600), budget_deadline=in_(7200))
    async with workers(real.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        await world.saw("awaiting_budget").wait()
        world.money = True
        await gateway.signal_work_item(world.tenant_id, world.work_item_id)
        assert await ended(real, world) is S.SUCCEEDED


async def test_money_that_never_comes_expires_the_item(skipping: WorkflowEnvironment) -> None:
    now = await skipping.get_current_time()
    world = World(money=False, budget_retry_at=now + timedelta(hours=5), budget_deadline=now + timedelta(hours=30))
    async with workers(skipping.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        assert await ended(skipping, world) is S.EXPIRED
    assert "short by 1 USD" in world.reason


async def test_a_window_that_passed_in_the_queue_is_reserved_again(skipping: WorkflowEnvironment) -> None:
    world = World(level=RiskLevel.L3)
    async with workers(skipping.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        await world.saw("awaiting_approval").wait()
        world.approval, world.money = ApprovalStatus.APPROVED, False
        await gateway.signal_work_item(world.tenant_id, world.work_item_id)
        await world.saw("awaiting_budget").wait()
        world.money = True
        await gateway.signal_work_item(world.tenant_id, world.work_item_id)
        assert await ended(skipping, world) is S.SUCCEEDED
    assert world.asked["open_approval"] <= 2, "an approval that stands is not asked for again"


@pytest.mark.parametrize("through_temporal", [False, True])
@pytest.mark.parametrize("state", ["awaiting_budget", "awaiting_approval", "held", "queued", "running"])
async def test_cancel_at_any_point(real: WorkflowEnvironment, state: str, through_temporal: bool) -> None:
    world = World(
        money=state != "awaiting_budget",
        level=RiskLevel.L3 if state == "awaiting_approval" else RiskLevel.L1,
        halted=state == "held",
        run_holds=True,
    )
    async with workers(real.client, world, runtime=state != "queued") as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        if state == "queued":
            await until_scheduled(real, world, "place_run")
        else:
            await world.saw(state).wait()
        if through_temporal:
            await gateway.cancel_work_item(world.tenant_id, world.work_item_id)
            with pytest.raises(WorkflowFailureError) as failure:
                await result(real, world)
            assert isinstance(failure.value.cause, CancelledError)
        else:
            world.ask_cancel()
            await gateway.signal_work_item(world.tenant_id, world.work_item_id)
            await ended(real, world)
        if state == "awaiting_approval":
            await gateway.signal_approval(world.approval_id)  # what the outbox sends when an approval is closed
            await real.client.get_workflow_handle(approval_workflow_id(world.approval_id)).result()
            assert world.approval is ApprovalStatus.CANCELLED
    assert (world.status, world.terminal) == (S.CANCELLED, 1)


async def test_a_halt_holds_until_it_is_lifted(real: WorkflowEnvironment) -> None:
    world = World(halted=True)
    async with workers(real.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        await world.saw("held").wait()
        world.halted = False
        await gateway.signal_work_item(world.tenant_id, world.work_item_id)
        assert await ended(real, world) is S.SUCCEEDED


async def test_a_halt_takes_a_waiting_run_out_of_the_queue(real: WorkflowEnvironment) -> None:
    world = World()
    async with workers(real.client, world, runtime=False) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        await until_scheduled(real, world, "place_run")
        world.halted = True
        await gateway.signal_work_item(world.tenant_id, world.work_item_id)
        await until_timer(real, world)  # the timer of the hold comes with the cancelling of the activity
        async with tenant_queue_worker(real.client, world):
            assert world.asked["place"] == 0
            world.halted = False
            await gateway.signal_work_item(world.tenant_id, world.work_item_id)
            assert await ended(real, world) is S.SUCCEEDED
    assert (world.asked["place"], world.claims) == (1, 1)


@pytest.mark.parametrize("cancel", [False, True])
async def test_a_suspended_run_rests_until_people_have_decided(real: WorkflowEnvironment, cancel: bool) -> None:
    world = World(follow_answers=[act.FollowState.SUSPENDED])
    async with workers(real.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        await world.saw("follow 1").wait()
        await until_timer(real, world)
        assert (world.asked["mint"], world.asked["end_lost"]) == (1, 0), "it rests"
        if cancel:
            world.cancel_requested = True
        else:
            world.go_on()
        await gateway.signal_work_item(world.tenant_id, world.work_item_id)
        assert await ended(real, world) is (S.CANCELLED if cancel else S.SUCCEEDED)
    assert world.attempt == (1 if cancel else 2)


@pytest.mark.parametrize("lost", [act.FollowState.GONE, act.FollowState.NOT_STARTED])
@pytest.mark.parametrize("restartable", [True, False])
async def test_a_lost_run_is_a_new_attempt_or_failed(
    skipping: WorkflowEnvironment, lost: act.FollowState, restartable: bool
) -> None:
    world = World(restartable=restartable, follow_answers=[lost])
    async with workers(skipping.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        assert await ended(skipping, world) is (S.SUCCEEDED if restartable else S.FAILED)
    assert world.attempt == (2 if restartable else 1)
    assert world.asked["mint"] == world.attempt, "each attempt has a warrant of its own"


@pytest.mark.parametrize(
    "answer", [act.PlaceState.STALE, ApplicationError("the runtime has just gone", type="runtime-away")]
)
async def test_a_place_that_came_to_nothing_is_tried_under_a_new_warrant(
    skipping: WorkflowEnvironment, answer: act.PlaceState | Exception
) -> None:
    world = World(place_answers=[answer, answer])
    async with workers(skipping.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        assert await ended(skipping, world) is S.SUCCEEDED
    assert (world.asked["place"], world.asked["mint"], world.attempt) == (3, 3, 1)


async def test_a_warrant_that_grows_stale_in_the_queue_is_minted_anew(real: WorkflowEnvironment) -> None:
    world = World(claim_before=lambda: in_(31))  # 30 s of margin leave a second in the queue
    async with workers(real.client, world, runtime=False) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        async with asyncio.timeout(60):
            await world.saw("mint 3").wait()
        assert world.asked["place"] == 0
        async with tenant_queue_worker(real.client, world):
            assert await ended(real, world) is S.SUCCEEDED
    assert world.attempt == 1, "one claim, however many warrants"


async def test_an_unknown_item_fails_the_workflow_and_runs_nothing(skipping: WorkflowEnvironment) -> None:
    world, other = World(), World()
    async with workers(skipping.client, world) as gateway:
        await gateway.start_work_item(other.tenant_id, other.work_item_id)
        with pytest.raises(WorkflowFailureError):
            await result(skipping, other)
    assert not world.steps


async def test_a_domain_error_ends_the_item_failed(skipping: WorkflowEnvironment) -> None:
    world = World()
    world.broken["mint"] = ApplicationError("what was approved is not this", type="warrant-refused", non_retryable=True)
    async with workers(skipping.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        assert await ended(skipping, world) is S.FAILED
    assert world.reason == "what was approved is not this"
    assert world.asked["place"] == 0


async def test_a_database_that_is_away_delays_and_loses_nothing(skipping: WorkflowEnvironment) -> None:
    world = World()
    world.broken["reserve"] = ConnectionError("the server closed the connection")

    async with workers(skipping.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        waiting = asyncio.create_task(result(skipping, world))
        await world.saw("reserve 6").wait()
        world.broken.clear()
        await waiting
    assert world.status is S.SUCCEEDED


async def test_a_cancelled_approval_workflow_of_an_open_item_goes_on(real: WorkflowEnvironment) -> None:
    world = World(level=RiskLevel.L3)
    async with workers(real.client, world) as gateway:
        await gateway.start_work_item(world.tenant_id, world.work_item_id)
        await world.saw("awaiting_approval").wait()
        await gateway.cancel_approval(world.approval_id)
        await world.saw("cancel_approval").wait()
        assert world.approval is ApprovalStatus.PENDING, "a message closes nothing that the rows keep open"
        world.approval = ApprovalStatus.APPROVED
        await gateway.signal_approval(world.approval_id)
        await gateway.signal_work_item(world.tenant_id, world.work_item_id)
        assert await ended(real, world) is S.SUCCEEDED
