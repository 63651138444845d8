"""Executes nothing and answers *succeeded*: for development, and for measuring the rest.

Every result it gives is marked ``simulated``.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sandbox.link.messages import RunRef, RuntimeFacts
from sandbox.runner import Found, Job, SandboxExit, SandboxHandle, Usage


class NullHandle:
    """A sandbox that was never there."""

    simulated = True

    def __init__(self, container_id: str) -> None:
        self.container_id = container_id
        self._at = datetime.now(UTC)

    async def wait(self) -> SandboxExit:
        """Has ended."""
        return SandboxExit(exit_code=0, started_at=self._at, ended_at=datetime.now(UTC))

    async def kill(self) -> None:
        """Nothing to kill."""

    async def pause(self) -> bool:
        """Nothing to pause."""
        return False

    async def unpause(self) -> bool:
        """It never stands."""
        return True

    async def paused(self) -> bool:
        """Never."""
        return False

    async def usage(self) -> Usage | None:
        """Used nothing."""
        return Usage(cpu_seconds=0.0, memory_peak_bytes=0)

    async def remove(self) -> None:
        """Nothing to remove."""


class NullRunner:
    """The runner that runs nothing."""

    async def facts(self) -> RuntimeFacts:
        """Says plainly that it fences nothing."""
        return RuntimeFacts(runtime_version="0", null_runner=True)

    async def start(self, job: Job) -> SandboxHandle:
        """Pretends."""
        return NullHandle(f"null-{job.run.run_id}")

    async def clear(self, run: RunRef) -> None:
        """There is nothing."""

    async def find(self) -> list[Found]:
        """Nothing outlives it."""
        return []

    def attach(self, container_id: str) -> SandboxHandle:
        """Never called, since nothing is found."""
        return NullHandle(container_id)
