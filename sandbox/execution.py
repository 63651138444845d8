"""One attempt from start, or from re-attachment, to its result."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog

from sandbox.agent_ports import AgentPorts
from sandbox.bridge import Bridge
from sandbox.container_arguments import guest_config
from sandbox.image_command import resolve_command
from sandbox.job_file import read_job, write_job
from sandbox.outcome import judge
from sandbox.pauses import Pauses
from sandbox.runner import Job, Runner, SandboxExit, SandboxHandle, StartFailedError, Usage
from sandbox.spec import RunOutcome, RunResult
from sandbox.starting import PatientStart
from sandbox.warm_pool import Prepared

log = structlog.get_logger(__name__)

_MEMORY_FULL = 0.97
"""Share of the memory limit from which on an unasked kill is put down to it."""
_SAMPLE_SECONDS = 5.0
_DRAIN_SECONDS = 5.0
_GRACE_SECONDS = 5.0
_STANDING_SECONDS = 0.5
"""How often it is looked at what should change and has not."""
_LEASE_SLACK_SECONDS = 1.0
"""How far the guest's clock may be ahead of ours when it says that the lease is over."""
_POLITE = (RunOutcome.CANCELLED, RunOutcome.TIMED_OUT, RunOutcome.SUSPENDED)
"""These give the agent a TERM and a moment; a halt, a lost lease and a flood do not."""


class Execution:
    """Watches one sandbox: its guest, its limits, its end.

    Args:
        runner: What starts it.
        job: What is started.
        on_started: Called with the container's id and start time, once, before the agent is waited for.
        prepared: A sandbox that was started before; None starts one.
    """

    def __init__(
        self,
        runner: Runner,
        job: Job,
        on_started: Callable[[str, datetime], Coroutine[Any, Any, None]] | None = None,
        prepared: Prepared | None = None,
    ) -> None:
        self._prepared = prepared
        self._runner = runner
        self._job = job
        self._on_started = on_started
        listener = prepared.guest.listener if prepared else None
        self.bridge = Bridge(job.folder, job.spec.limits, job.lease, listener)
        self._ports = AgentPorts(job.outside, self.bridge.intake) if job.outside else None
        self.pauses = Pauses(job.folder.state)
        self._stopped: RunOutcome | None = None
        self._stop = asyncio.Event()
        self._usage = Usage()

    @property
    def usage(self) -> Usage:
        """What the sandbox has used, as last sampled."""
        return self._usage

    def stop(self, outcome: RunOutcome) -> None:
        """Ends the run with this outcome; the first reason stands."""
        if self._stopped is None:
            self._stopped = outcome
            self._stop.set()

    def lease_renewed(self) -> None:
        """Tells the guest, which counts the lease too."""
        self.bridge.tell_lease()

    async def run(self) -> RunResult:
        """Starts the sandbox and returns how it ended. Cancelling detaches; the sandbox lives on."""
        if self._stopped is not None:
            return self._never_started(self._stopped, "ended before it was started")
        try:
            try:
                handle = await self._start()
            except StartFailedError as failure:
                return self._never_started(self._stopped or failure.outcome, failure.detail)
            started = datetime.now(UTC)
            if self._on_started is not None:
                await self._on_started(handle.container_id, started)
            await self._open_ports()
            self.bridge.give_job(read_job(self._job.folder))
            return await self._follow(handle, started)
        finally:
            await self.bridge.close()

    async def _start(self) -> SandboxHandle:
        if self._prepared is None:
            await self.bridge.start()
            return await PatientStart(self._runner, self._job, self._stop, self.bridge.reopen).start()
        command = resolve_command(self._prepared.image, self._job.spec)
        write_job(self._job.folder, guest_config(self._job, command))
        self._prepared.guest.hand_to(self.bridge)
        return self._prepared.handle

    async def resume(self, container_id: str, started: datetime) -> RunResult:
        """Goes on with a sandbox that an earlier process started."""
        self.bridge.give_job(read_job(self._job.folder))
        await self.bridge.start()
        handle = self._runner.attach(container_id)
        try:
            self.pauses.found(await handle.paused())
            self.bridge.hold_lease(self.pauses.now)
            return await self._follow(handle, started)
        finally:
            await self.bridge.close()

    def _never_started(self, outcome: RunOutcome, detail: str) -> RunResult:
        return RunResult(outcome=outcome, detail=detail[:2000], ended_at=datetime.now(UTC))

    async def _open_ports(self) -> None:
        if self._ports is not None:
            await self._ports.open(self._job.folder.bridge)

    async def _follow(self, handle: SandboxHandle, started: datetime) -> RunResult:
        await self._open_ports()
        exit_task = asyncio.create_task(handle.wait())
        watchers: list[asyncio.Task[Any]] = [
            exit_task,
            asyncio.create_task(self._watch_completion(handle)),
            asyncio.create_task(self._watch_output()),
            asyncio.create_task(self._watch_clock(started)),
            asyncio.create_task(self._sample(handle)),
            asyncio.create_task(self._terminate_when_told(handle)),
            asyncio.create_task(self._pause_when_told(handle)),
        ]
        try:
            end = await exit_task
            if end.gone:
                # It may live on where the engine does not see it.
                self.bridge.end_guest()
            await self.bridge.drain(_DRAIN_SECONDS)
        finally:
            if self._ports is not None:
                await self._ports.close()  # Before the result: what is saved later is not in it.
            for task in watchers:
                task.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
        return self._result(handle, end, started)

    async def _watch_completion(self, handle: SandboxHandle) -> None:
        await self.bridge.complete.wait()
        # The last moment at which the cgroup is still there.
        await self._take_sample(handle)
        await self.bridge.finish()

    async def _watch_output(self) -> None:
        await self.bridge.over_limit.wait()
        self.stop(RunOutcome.OUTPUT_LIMIT)

    async def _watch_clock(self, started: datetime) -> None:
        while (left := self._wall_left(started)) > 0:  # noqa: ASYNC110 (time itself has no event)
            await asyncio.sleep(max(left, _STANDING_SECONDS) if self.pauses.now else left)
        self.stop(RunOutcome.TIMED_OUT)

    def _wall_left(self, started: datetime) -> float:
        now = datetime.now(UTC)
        used = (now - started).total_seconds() - self.pauses.seconds(now)
        return self._job.spec.limits.wall_seconds - used

    async def _pause_when_told(self, handle: SandboxHandle) -> None:
        while True:
            if self.pauses.wanted and not self.pauses.now:
                await self._pause(handle)
            elif self.pauses.now and not self.pauses.wanted:
                await self._go_on(handle)
            if self.pauses.wanted is self.pauses.now:
                await self.pauses.told.wait()
                self.pauses.told.clear()
            else:
                await asyncio.sleep(_STANDING_SECONDS)

    async def _pause(self, handle: SandboxHandle) -> None:
        self.bridge.hold_lease(True)
        self.pauses.begin(datetime.now(UTC))
        if not await handle.pause():
            self.pauses.end(datetime.now(UTC))
            self.bridge.hold_lease(False)
            self.bridge.tell_lease()

    async def _go_on(self, handle: SandboxHandle) -> None:
        """INVARIANT: the own lease is looked at first; and the guest finds what is left of it when it wakes."""
        if self._job.lease() <= 0:
            self.stop(RunOutcome.LEASE_LOST)
            return
        self.bridge.tell_resumed()
        if await handle.unpause():
            self.pauses.end(datetime.now(UTC))
            self.bridge.hold_lease(False)

    async def _sample(self, handle: SandboxHandle) -> None:
        while True:
            await asyncio.sleep(_SAMPLE_SECONDS)
            await self._take_sample(handle)

    async def _take_sample(self, handle: SandboxHandle) -> None:
        sample = await handle.usage()
        if sample is None:
            return
        self._usage = Usage(
            cpu_seconds=max(sample.cpu_seconds or 0.0, self._usage.cpu_seconds or 0.0),
            memory_peak_bytes=max(sample.memory_peak_bytes or 0, self._usage.memory_peak_bytes or 0),
            memory_bytes=sample.memory_bytes,
        )

    async def _terminate_when_told(self, handle: SandboxHandle) -> None:
        await self._stop.wait()
        if self._stopped is RunOutcome.SUSPENDED and self.pauses.now and self._job.lease() > 0:
            await self._go_on(handle)  # Else it could not save what it has.
        if self._stopped in _POLITE and not self.pauses.now and self.bridge.signal("TERM"):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_SECONDS):
                    await self.bridge.complete.wait()
                    await asyncio.Event().wait()  # finish() lets the guest go; then we are cancelled.
        if self._stopped is not RunOutcome.LEASE_LOST:
            await self._take_sample(handle)
        await handle.kill()

    def _result(self, handle: SandboxHandle, end: SandboxExit, started: datetime) -> RunResult:
        complete = handle.simulated or self.bridge.complete.is_set()
        lease_over = self._job.lease() <= _LEASE_SLACK_SECONDS
        limit = self._job.spec.limits.memory_bytes
        memory_full = (self._usage.memory_peak_bytes or 0) >= limit * _MEMORY_FULL
        outcome, detail = judge(
            self._stopped,
            end,
            self.bridge.exit,
            complete=complete,
            lease_over=lease_over,
            memory_full=memory_full,
        )
        if self.bridge.intake.skipped:
            listed = "; ".join(f"{path}: {why}" for path, why in self.bridge.intake.skipped.items())
            detail = f"{detail}; not taken as artifacts: {listed}".removeprefix("; ")
        usage = self._usage
        if outcome is RunOutcome.OUT_OF_MEMORY and end.oom_flag:
            usage = replace(usage, memory_peak_bytes=self._job.spec.limits.memory_bytes)
        # A prepared one has run before it was this run's.
        begin = started if read_job(self._job.folder) else end.started_at or started
        finish = end.ended_at or datetime.now(UTC)
        paused = self.pauses.seconds(finish)
        return RunResult(
            outcome=outcome,
            exit_code=end.exit_code,
            detail=detail[:2000],
            started_at=begin,
            ended_at=finish,
            wall_seconds=max(0.0, (finish - begin).total_seconds() - paused),
            paused_seconds=paused,
            cpu_seconds=usage.cpu_seconds,
            memory_peak_bytes=usage.memory_peak_bytes,
            output_bytes=self.bridge.spool.end,
            # What a suspended agent leaves is not the work item's.
            artifacts=() if outcome is RunOutcome.SUSPENDED else tuple(self.bridge.intake.kept.values()),
            oom_flag=end.oom_flag,
            simulated=handle.simulated,
        )
