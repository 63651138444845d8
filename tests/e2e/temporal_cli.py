"""Temporal's own command, as an operator (or somebody who got hold of an operator's console) has it."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast
from uuid import UUID, uuid4

from workers.stack.stack import Stack


class TemporalCli:
    """Speaks to one stack's Temporal."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    async def run(self, *words: str, check: bool = True, seconds: float = 30) -> str:
        """Run one command; what it printed.

        Raises:
            AssertionError: It failed (unless `check` is False) or took too long.
        """
        where = ["--address", f"127.0.0.1:{self._stack.ports.temporal}", "--namespace", "awgp"]
        command = [str(self._stack.temporal.binary), *words, *where]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, stdin=asyncio.subprocess.DEVNULL
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), seconds)
        except TimeoutError:
            process.kill()
            await process.communicate()
            raise AssertionError(f"temporal {' '.join(words)} took more than {seconds:.0f} s") from None
        text = output.decode(errors="replace")
        assert not check or process.returncode == 0, f"temporal {' '.join(words)}: {text}"
        return text

    async def signal(self, workflow_id: str, name: str = "look_again", given: Any = None) -> str:
        more = [] if given is None else ["--input", json.dumps(given)]
        return await self.run("workflow", "signal", "-w", workflow_id, "--name", name, *more)

    async def start(self, workflow_type: str, workflow_id: str, given: Any, queue: str = "control") -> str:
        return await self.run(
            "workflow", "start", "--type", workflow_type, "--task-queue", queue, "-w", workflow_id,
            "--input", json.dumps(given),
        )  # fmt: skip

    async def reset(self, workflow_id: str, kind: str = "FirstWorkflowTask") -> str:
        return await self.run("workflow", "reset", "-w", workflow_id, "--type", kind, "--reason", "a test")

    async def terminate(self, workflow_id: str) -> str:
        return await self.run("workflow", "terminate", "-w", workflow_id, "--reason", "a test")

    async def complete_activity(self, workflow_id: str, activity_id: str, result: Any) -> str:
        return await self.run(
            "activity", "complete", "-w", workflow_id, "--activity-id", activity_id, "--result", json.dumps(result)
        )

    async def execute_activity(self, activity_type: str, given: Any, queue: str = "control") -> str:
        """Run an activity by itself, without any workflow; the status and result (or failure) it ended with."""
        return await self.run(
            "activity", "execute", "--activity-id", uuid4().hex, "--type", activity_type, "--task-queue", queue,
            "--start-to-close-timeout", "10s", "--schedule-to-close-timeout", "15s", "--input", json.dumps(given),
            check=False,
        )  # fmt: skip

    async def describe(self, workflow_id: str) -> dict[str, Any]:
        text = await self.run("workflow", "describe", "-w", workflow_id, "-o", "json")
        return cast("dict[str, Any]", json.loads(text))

    async def status(self, workflow_id: str) -> str:
        """`RUNNING`, `COMPLETED`, `TERMINATED` …"""
        described = await self.describe(workflow_id)
        return str(described["workflowExecutionInfo"]["status"]).removeprefix("WORKFLOW_EXECUTION_STATUS_")

    async def pending(self, workflow_id: str) -> list[dict[str, Any]]:
        """Pending activities: `activityId`, `activityType.name`, `state` …"""
        described = await self.describe(workflow_id)
        return cast("list[dict[str, Any]]", described.get("pendingActivities") or [])


def workflow_of(tenant_id: UUID, item_id: UUID) -> str:
    """Id of a work item's workflow."""
    return f"work-item/{tenant_id}/{item_id}"
