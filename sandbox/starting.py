"""A start that outlasts its engine: tried again until the sandbox runs, its lease is over, or it is stopped.

Docker may list a container as only *created* although it runs, where dockerd was killed between the two. So nothing
is ever read out of what a try has left: it is ended, removed, and another sandbox is started in another folder.

INVARIANT: an agent is executed at most once. Its guest waits for the job, which is said after the start has
succeeded and was recorded, to the one guest that has the folder of that start.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import structlog

from sandbox.runner import Job, Runner, SandboxHandle, StartFailedError, StartUnsureError
from sandbox.spec import RunOutcome

log = structlog.get_logger(__name__)

_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 3.0
_FAILING_SECONDS = 30.0
"""How long an engine may answer with failures: one whose containerd was killed does for a dozen seconds."""


class PatientStart:
    """One start.

    Args:
        runner: What starts it.
        job: What is started; its lease is the deadline.
        stop: Set when nobody wants it any more.
        renew: Makes another folder for the next try.
    """

    def __init__(self, runner: Runner, job: Job, stop: asyncio.Event, renew: Callable[[], Awaitable[None]]) -> None:
        self._runner = runner
        self._job = job
        self._stop = stop
        self._renew = renew

    async def start(self) -> SandboxHandle:
        """Returns the started sandbox; raises ``StartFailedError``."""
        failing_since: float | None = None
        pause = _FIRST_PAUSE_SECONDS
        used = False
        while True:
            try:
                if used:
                    await self._runner.clear(self._job.run)
                    await self._renew()
                used = True
                return await self._runner.start(self._job)
            except StartUnsureError as error:
                log.warning("start_tried_again", run=str(self._job.run.run_id), away=error.away, error=error.detail)
                now = time.monotonic()
                failing_since = None if error.away else failing_since or now
                if failing_since is not None and now - failing_since > _FAILING_SECONDS:
                    raise StartFailedError(RunOutcome.START_FAILED, error.detail) from error
                await self._wait(pause, error)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _wait(self, seconds: float, error: StartUnsureError) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        if self._stop.is_set() or self._job.lease() <= 0:
            with contextlib.suppress(StartUnsureError, StartFailedError):
                await self._runner.clear(self._job.run)  # Else the reaper will.
            raise StartFailedError(RunOutcome.LEASE_LOST, f"never started: {error.detail}") from error
