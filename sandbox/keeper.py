"""All runs of this runtime: takes placements, counts leases, finds what an earlier process left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from joserfc.jwk import KeySet

from sandbox.agent_forwarding import Outside
from sandbox.agent_upstreams import Upstreams
from sandbox.course import Course, ref_text
from sandbox.link.blob_client import BlobClient
from sandbox.link.lease import Leases
from sandbox.link.messages import KillReason, Pause, Place, Placed, Renewed, Resume, RunRef, Suspend
from sandbox.placement_store import Placement, PlacementStore, StartRecord, WarrantUsedError
from sandbox.runner import Found, Runner
from sandbox.spec import RunOutcome, RunResult
from sandbox.warm_pool import WarmPool
from sandbox.warrant import WarrantClaims, WarrantRefusedError, check_warrant

log = structlog.get_logger(__name__)

_OUTCOMES = {
    KillReason.CANCELLED: RunOutcome.CANCELLED,
    KillReason.HALTED: RunOutcome.HALTED,
    KillReason.LEASE_LOST: RunOutcome.LEASE_LOST,
}


class RunKeeper:
    """The runs that this runtime answers for, until each is acknowledged.

    Args:
        runner: What starts and finds sandboxes.
        store: What outlives this process.
        blobs: Where inputs come from.
        leases: The deadlines.
        tenant_id: The one tenant it is enrolled for.
        capacity: Sandboxes at once.
        upstreams: Where agents' requests go; None: agents have no ports.
        pool: Sandboxes prepared in advance; None: each run's own is started.

    Attributes:
        courses: By run, each until its result is acknowledged.
        on_course: Called with each new course; the session starts to report it.
    """

    def __init__(
        self,
        runner: Runner,
        store: PlacementStore,
        blobs: BlobClient,
        leases: Leases,
        *,
        tenant_id: UUID,
        capacity: int,
        upstreams: Upstreams | None = None,
        pool: WarmPool | None = None,
    ) -> None:
        self._pool = pool
        if pool is not None:
            pool.busy = self._is_starting
        self._runner = runner
        self._store = store
        self._blobs = blobs
        self._leases = leases
        self._tenant_id = tenant_id
        self.capacity = capacity
        self.upstreams = upstreams
        self.courses: dict[RunRef, Course] = {}
        self.on_course: Callable[[Course], None] = lambda course: None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def live(self) -> tuple[RunRef, ...]:
        """What it answers for: running, or ended and not yet acknowledged."""
        return tuple(self.courses)

    @property
    def paused(self) -> tuple[RunRef, ...]:
        """What of it stands still."""
        return tuple(run for run, course in self.courses.items() if course.paused)

    @property
    def free(self) -> int:
        """Places left."""
        return max(0, self.capacity - len(self.courses))

    async def place(self, place: Place, jwks: KeySet | None) -> Placed:
        """Verifies and records a placement, and starts it; the answer is for the broker."""
        run = RunRef(run_id=place.run_id, attempt=place.attempt)
        refusal = None
        if run not in self.courses:
            try:
                refusal = await self._accept(run, place, jwks)
            except OSError as error:
                refusal = f"it could not be recorded: {error}"
        if refusal is not None:
            log.warning("placement_refused", reason=refusal, **ref_text(run))
        return Placed(run_id=run.run_id, attempt=run.attempt, accepted=refusal is None, error=refusal)

    async def _accept(self, run: RunRef, place: Place, jwks: KeySet | None) -> str | None:
        if jwks is None:
            return "no keys for warrants are known"
        if self.free == 0:
            return "no free place"
        try:
            claims = check_warrant(place, jwks, self._tenant_id, time.time())
        except WarrantRefusedError as error:
            return str(error)
        deadline = self._leases.grant(run, place.lease_seconds, place.heartbeat_id)
        if self._leases.remaining(run) <= 0:
            self._leases.drop(run)
            return "it came after its lease was over"
        placement = Placement(
            run=run, spec=place.spec, jti=claims.jti, continuation=place.continuation, warrant=place.warrant
        )
        course = self._course(placement)
        self.courses[run] = course  # Before the first await: two placements never share a place.
        try:
            await asyncio.to_thread(self._record, claims, placement, deadline)
        except BaseException as error:
            self.courses.pop(run, None)
            self._leases.drop(run)
            if isinstance(error, WarrantUsedError):
                return "this warrant was used before"
            raise
        self._end_older_attempts(run)
        self._spawn(course.conduct(self._blobs), course)
        self.on_course(course)
        return None

    def _is_starting(self) -> bool:
        return any(course.container_id is None and course.result is None for course in self.courses.values())

    def _course(self, placement: Placement) -> Course:
        outside = None
        if self.upstreams is not None and placement.warrant:
            outside = Outside(self.upstreams, placement.warrant, placement.run.attempt)
        lease = partial(self._leases.remaining, placement.run)
        return Course(placement, self._store, self._runner, lease, outside, self._pool)

    def _record(self, claims: WarrantClaims, placement: Placement, deadline: float) -> None:
        # INVARIANT: the warrant is burnt before anything is recorded to run under it.
        self._store.use_warrant(claims)
        self._store.record(placement)
        self._store.write_lease(placement.run, deadline)

    def _end_older_attempts(self, run: RunRef) -> None:
        for other, course in self.courses.items():
            if other.run_id == run.run_id and other.attempt < run.attempt:
                course.stop(RunOutcome.LEASE_LOST)

    def _spawn(self, work: Coroutine[Any, Any, None], course: Course) -> None:
        task = asyncio.create_task(self._guard(work, course))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Coroutine[Any, Any, None], course: Course) -> None:
        try:
            await work
        except Exception as error:
            # A bug of ours must not leave the run without an end.
            log.exception("run_failed_in_runtime", **ref_text(course.run))
            detail = f"the runtime failed: {error!r}"[:500]
            if course.container_id is not None:
                await self._runner.attach(course.container_id).kill()
            await course.end(RunResult(outcome=RunOutcome.START_FAILED, detail=detail))
        self._leases.drop(course.run)

    def kill(self, run: RunRef, reason: KillReason) -> None:
        """Ends a run; one that is not here is no error."""
        course = self.courses.get(run)
        if course is not None:
            course.stop(_OUTCOMES[reason])

    def ask(self, message: Pause | Resume | Suspend) -> None:
        """Lets a run stand still, go on, or leave; one that is not here is no error."""
        course = self.courses.get(RunRef(run_id=message.run_id, attempt=message.attempt))
        match message:
            case _ if course is None:
                pass
            case Pause():
                course.pause(True)
            case Resume():
                course.pause(False)
            case Suspend():
                course.suspend()

    def renewed(self, message: Renewed, seconds: float) -> None:
        """Moves the deadlines of these runs, here, on disk and in their guests."""
        moved = self._leases.renewed(message.heartbeat_id, message.runs, seconds)
        for run, deadline in moved.items():
            self._store.write_lease(run, deadline)
            course = self.courses.get(run)
            if course is not None:
                course.lease_renewed()

    def heartbeat_sent(self, heartbeat_id: int) -> None:
        """Marks the moment from which a renewal will count."""
        self._leases.heartbeat_sent(heartbeat_id)

    def deadline(self, run: RunRef) -> float | None:
        """Returns when the run's lease ends, on the lease clock."""
        return self._leases.deadline(run)

    def end_expired(self) -> None:
        """Kills what has no lease any more; called often, connected or not."""
        for run in self._leases.expired():
            course = self.courses.get(run)
            if course is None or course.result is not None:
                self._leases.drop(run)
            else:
                course.stop(RunOutcome.LEASE_LOST)

    def acknowledged(self, run: RunRef) -> None:
        """The broker has the result: everything of the run is forgotten."""
        course = self.courses.get(run)
        if course is None or course.result is None:
            return
        del self.courses[run]
        course.close()
        self._store.forget(run)

    async def resume(self) -> None:
        """Takes up what an earlier process left; the engine must be there. Called once, at start."""
        self._store.forget_old_warrants(time.time())
        found = await self._runner.find()
        for placement in self._store.placements():
            course = self._course(placement)
            self.courses[placement.run] = course
            self._leases.restore(placement.run, self._store.lease(placement.run))
            await self._take_up(course, self._sandbox_of(placement.run, found))
        await self.reap(found)
        if self._pool is not None:
            self._pool.sweep()

    def _sandbox_of(self, run: RunRef, found: list[Found]) -> Found | None:
        """By the record, since a prepared sandbox's labels name no run; before there is one, by the labels."""
        start = self._store.start(run)
        if start is not None:
            return next((item for item in found if item.container_id == start.container_id), None)
        return next((item for item in found if item.run == run), None)

    async def _take_up(self, course: Course, found: Found | None) -> None:
        result = self._store.result(course.run)
        start = self._store.start(course.run)
        if result is not None:
            course.already_ended(result)
            if found is not None:
                await self._runner.attach(found.container_id).remove()
        elif found is not None and found.started:
            log.info("run_taken_up", **ref_text(course.run))
            start = start or StartRecord(container_id=found.container_id, started_at=datetime.now(UTC))
            course.container_id = start.container_id  # Before the reaper looks.
            self._spawn(course.resume(start), course)
        elif start is not None:
            if found is not None:
                await self._runner.attach(found.container_id).remove()
            detail = "its sandbox is gone from this host"
            await course.end(RunResult(outcome=RunOutcome.RUNTIME_GONE, detail=detail))
        else:
            if found is not None:
                await self._runner.attach(found.container_id).remove()
            detail = "the runtime went down before the sandbox was started"
            await course.end(RunResult(outcome=RunOutcome.NOT_STARTED, detail=detail))

    async def reap(self, found: list[Found] | None = None) -> None:
        """Kills and removes this runtime's containers that no run answers for."""
        for item in await self._runner.find() if found is None else found:
            if not self._answers_for(item):
                log.warning("orphan_reaped", container=item.container_id)
                handle = self._runner.attach(item.container_id)
                await handle.kill()
                await handle.remove()

    def _answers_for(self, item: Found) -> bool:
        """A course answers for the container it has; one that has none yet, for any that is being started for it."""
        if any(course.container_id == item.container_id for course in self.courses.values()):
            return True
        if item.prepared is not None:
            return self._pool is not None and self._pool.knows(item.prepared)
        course = None if item.run is None else self.courses.get(item.run)
        return course is not None and course.result is None and course.container_id is None

    async def detach(self) -> None:
        """Lets go of all sandboxes; they live on, and the next process takes them up."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
