"""The two paths that are compared, each from its request to its workflow's result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from api.schemas.work_items import WorkItemAnswer
from bench.lifecycle import bare
from tests.e2e.client import User
from tests.e2e.work import item
from workflows.names import work_item_workflow_id

ASSISTANT = "reconciler"
NOT_YET_SECONDS = 0.005
RESULT_SECONDS = 120

One = Callable[[], Awaitable[object]]


@dataclass
class Paths:
    """Whole work items through the public API, and bare workflows.

    Attributes:
        items: Every work item that was asked for, to be recounted.
        workflows: Ids of the bare workflows.
    """

    client: Client
    requester: User
    approver: User
    items: list[UUID] = field(default_factory=list[UUID])
    workflows: list[str] = field(default_factory=list[str])

    async def ours(self) -> WorkItemAnswer:
        """One L0 work item."""
        asked = await self.requester.submit(item(ASSISTANT, "L0", "Measured"))
        self.items.append(asked.id)
        await self._result(work_item_workflow_id(asked.tenant_id, asked.id))
        return asked

    async def floor(self) -> str:
        """One bare workflow."""
        name = f"bare/{uuid4()}"
        self.workflows.append(name)
        handle = await self.client.start_workflow(
            bare.BareWorkflow.run, bare.Step(name="whole"), id=name, task_queue=bare.CONTROL_QUEUE
        )
        await asyncio.wait_for(handle.result(), RESULT_SECONDS)
        return name

    async def approved(self) -> tuple[WorkItemAnswer, UUID, datetime]:
        """One L3 work item, its approval, and when the decision was answered."""
        asked = await self.requester.submit(item(ASSISTANT, "L3", "Measured"))
        self.items.append(asked.id)
        approval = await self.approver.approval_of(asked.id)
        await self.approver.decide(approval)
        answered = datetime.now(UTC)
        await self._result(work_item_workflow_id(asked.tenant_id, asked.id))
        return asked, approval.id, answered

    async def _result(self, workflow_id: str) -> None:
        """Wait for a workflow's end; it is started a moment after the API has answered."""
        deadline = time.monotonic() + RESULT_SECONDS
        while True:
            try:
                handle = self.client.get_workflow_handle(workflow_id)
                await asyncio.wait_for(handle.result(), deadline - time.monotonic())
                return
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(NOT_YET_SECONDS)


async def throughput(one: One, number: int, at_once: int) -> float:
    """How many of `one` are done a second, with `at_once` under way."""
    left = number

    async def loop() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await one()

    began = time.perf_counter()
    await asyncio.gather(*(loop() for _ in range(min(at_once, number))))
    return number / (time.perf_counter() - began)


async def latency(one: One) -> float:
    """Milliseconds that one takes alone."""
    began = time.perf_counter()
    await one()
    return (time.perf_counter() - began) * 1000
