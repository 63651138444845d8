"""One attempt as the runtime has it: from recorded placement to acknowledged result."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import structlog

from sandbox.agent_forwarding import Outside
from sandbox.execution import Execution
from sandbox.image_command import DECISIONS_PATH, STATE_PATH
from sandbox.link.blob_client import BlobClient, BlobRefusedError
from sandbox.link.messages import RunRef
from sandbox.placement_store import Placement, PlacementStore, StartRecord
from sandbox.runner import Job, Runner, Usage
from sandbox.spec import InputFile, RunOutcome, RunResult
from sandbox.spool import OutputSpool
from sandbox.warm_pool import Prepared, WarmPool

log = structlog.get_logger(__name__)


class Course:
    """A run under way, or ended and not yet acknowledged.

    Args:
        placement: What is run.
        store: Where its state is kept.
        runner: What runs it.
        lease: Answers the seconds left of its lease.
        outside: What its agent reaches by its two ports.
        pool: Where a prepared sandbox may be had; None starts each run's own.

    Attributes:
        container_id: Known once it started.
        result: Known, and durable, once it ended.
        acked: Offset before which the broker has its output.
    """

    def __init__(
        self,
        placement: Placement,
        store: PlacementStore,
        runner: Runner,
        lease: Callable[[], float],
        outside: Outside | None = None,
        pool: WarmPool | None = None,
    ) -> None:
        self._pool = pool
        self._prepared: Prepared | None = None
        self.run = placement.run
        self.spec = placement.spec
        self.folder = store.folder(placement.run)
        self.container_id: str | None = None
        self.result: RunResult | None = None
        self.acked = 0
        self.changed = asyncio.Event()
        self._store = store
        self._runner = runner
        self._job = Job(placement.run, placement.spec, self.folder, lease, placement.continuation, outside)
        self._execution: Execution | None = None
        self._ended_spool: OutputSpool | None = None
        self._stopped: RunOutcome | None = None
        self._paused = False
        self._fetching: asyncio.Task[None] | None = None

    @property
    def usage(self) -> Usage:
        """What its sandbox has used, as last sampled; of nothing before it runs."""
        return self._execution.usage if self._execution is not None else Usage()

    @property
    def spool(self) -> OutputSpool:
        """Its output, whether it runs or has ended."""
        if self._execution is not None:
            return self._execution.bridge.spool
        if self._ended_spool is None:
            self._ended_spool = OutputSpool(self.folder.state, self.spec.limits.output_bytes)
            self._ended_spool.finish()
        return self._ended_spool

    def tell(self) -> None:
        """Wakes whoever waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()

    def stop(self, outcome: RunOutcome) -> None:
        """Ends the run with this outcome, wherever it is."""
        if self._stopped is None:
            self._stopped = outcome
        if self._execution is not None:
            self._execution.stop(outcome)
        elif self._fetching is not None:
            self._fetching.cancel()

    @property
    def paused(self) -> bool:
        """Whether its sandbox stands still."""
        return self._execution is not None and self._execution.pauses.now

    def pause(self, paused: bool) -> None:
        """Lets it stand still, or go on; one that has not begun yet does so when it has."""
        self._paused = paused
        if self._execution is not None:
            self._execution.pauses.want(paused)

    def suspend(self) -> None:
        """Ends it ``suspended``, unless its agent has ended by itself."""
        if self._execution is None or self._execution.bridge.exit is None:
            self.stop(RunOutcome.SUSPENDED)

    def lease_renewed(self) -> None:
        """Passes a renewal on to the sandbox."""
        if self._execution is not None:
            self._execution.lease_renewed()

    async def conduct(self, blobs: BlobClient) -> None:
        """Runs a new placement to its end."""
        if self._pool is not None:
            self._prepared = await self._pool.claim(self.spec)
        if self._prepared is not None:
            await asyncio.to_thread(self.folder.adopt, self._prepared.mounts)
        failure = await self._fetch_inputs(blobs)
        if failure is not None:
            await self.end(failure)
            return
        self._execution = Execution(self._runner, self._job, self._on_started, self._prepared)
        self._execution.pauses.want(self._paused)
        if self._stopped is not None:
            self._execution.stop(self._stopped)
        await self.end(await self._execution.run())

    async def resume(self, start: StartRecord) -> None:
        """Goes on with a sandbox of an earlier process."""
        self.container_id = start.container_id
        self._execution = Execution(self._runner, self._job)
        if self._stopped is not None:
            self._execution.stop(self._stopped)
        self.tell()
        await self.end(await self._execution.resume(start.container_id, start.started_at))

    def already_ended(self, result: RunResult) -> None:
        """It ended in an earlier process."""
        self.result = result

    async def end(self, result: RunResult) -> None:
        """Makes the result durable, then removes the sandbox: never the other way round."""
        await asyncio.to_thread(self._store.write_result, self.run, result)
        self.result = result
        log.info("run_ended", run=str(self.run.run_id), attempt=self.run.attempt, outcome=result.outcome)
        if self.container_id is not None:
            await self._runner.attach(self.container_id).remove()
        elif self._prepared is not None:
            await self._prepared.discard()
        self._leave_pool()
        self.tell()

    def _leave_pool(self) -> None:
        if self._pool is not None and self._prepared is not None:
            self._pool.recorded(self._prepared)

    async def _on_started(self, container_id: str, at: datetime) -> None:
        self.container_id = container_id
        record = StartRecord(container_id=container_id, started_at=at)
        await asyncio.to_thread(self._store.write_start, self.run, record)
        self._leave_pool()
        self.tell()

    async def _fetch_inputs(self, blobs: BlobClient) -> RunResult | None:
        self._fetching = asyncio.create_task(self._fetch_all(blobs))
        if self._stopped is not None:
            self._fetching.cancel()
        try:
            await asyncio.wait([self._fetching])
            self._fetching.result()
        except asyncio.CancelledError:
            if self._stopped is None:
                self._fetching.cancel()
                raise
            return RunResult(outcome=self._stopped, detail="ended before it was started")
        except (BlobRefusedError, OSError) as error:
            return RunResult(outcome=RunOutcome.START_FAILED, detail=str(error)[:500])
        return None

    async def _fetch_all(self, blobs: BlobClient) -> None:
        for wanted in self.spec.inputs:
            await self._fetch_one(blobs, wanted, wanted.path)
        goes_on_from = self._job.continuation
        if goes_on_from is None:
            return
        if goes_on_from.state is not None:
            await self._fetch_one(blobs, goes_on_from.state, STATE_PATH)
        target = self._target(DECISIONS_PATH)
        target.write_text(goes_on_from.decisions)
        target.chmod(0o644)

    async def _fetch_one(self, blobs: BlobClient, wanted: InputFile, path: str) -> None:
        target = self._target(path)
        await blobs.fetch(wanted, target)
        target.chmod(0o644)

    def _target(self, path: str) -> Path:
        for parent in reversed(Path(path).parents[:-1]):
            with contextlib.suppress(FileExistsError):
                (self.folder.inputs / parent).mkdir()
            (self.folder.inputs / parent).chmod(0o755)
        return self.folder.inputs / path

    def close(self) -> None:
        """Forgets it: the broker has all."""
        self.spool.close()


def ref_text(run: RunRef) -> dict[str, object]:
    """Returns the run as fields of a log line."""
    return {"run": str(run.run_id), "attempt": run.attempt}
