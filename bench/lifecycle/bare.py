"""The floor: a workflow that does as many activities as an L0 work item does, and nothing else.

The activities answer at once, without a database; each is called as the product calls its like (local or normal,
with the same timeouts, on a queue of its own kind).
"""

from __future__ import annotations

from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():
    from pydantic import BaseModel, ConfigDict

    from workflows import options  # constants
    from workflows.steps import record  # no state: how the product calls its local activities

CONTROL_QUEUE = "bench-control"
BROKER_QUEUE = "bench-broker"
RUN_QUEUE = "bench-run"
LOCAL_BEFORE = ("assess", "reserve", "queue", "mint")
LOCAL_AFTER = ("finish",)


class Step(BaseModel):
    """Input and output of every step, about as large as the product's values.

    Attributes:
        words: What makes it so.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    words: str = "x" * 300


@activity.defn(name="bare_local")
async def bare_local(given: Step) -> Step:
    """Stands for a short database activity."""
    return given


@activity.defn(name="bare_place")
async def bare_place(given: Step) -> Step:
    """Stands for `place_run`."""
    return given


@activity.defn(name="bare_follow")
async def bare_follow(given: Step) -> Step:
    """Stands for `follow_run`."""
    return given


@workflow.defn
class BareWorkflow:
    """Local activities, two normal ones, a local one."""

    @workflow.run
    async def run(self, given: Step) -> Step:
        """Do the steps in their order."""
        for name in LOCAL_BEFORE:
            await record(bare_local, Step(name=name), name)
        await workflow.execute_activity(
            bare_place,
            given,
            task_queue=RUN_QUEUE,
            schedule_to_start_timeout=options.PLACE_WAIT_WITHOUT_CLAIM_TIME,
            start_to_close_timeout=options.PLACE_START_TO_CLOSE,
            retry_policy=options.PLACE_RETRY,
            summary="place",
        )
        await workflow.execute_activity(
            bare_follow,
            given,
            task_queue=BROKER_QUEUE,
            start_to_close_timeout=options.FOLLOW_START_TO_CLOSE,
            heartbeat_timeout=options.FOLLOW_HEARTBEAT,
            retry_policy=options.FOLLOW_RETRY,
            summary="follow",
        )
        for name in LOCAL_AFTER:
            given = await record(bare_local, Step(name=name), name)
        return given
