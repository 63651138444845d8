"""What sandboxes use, as their runtimes sample it, told to the live timeline: now and then, and once at the end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.events import EventKind
from models.repositories import runs as rows
from models.services import events
from models.services.runs import is_held_by
from models.storage.cache import Cache
from models.storage.db import Database
from sandbox.link.backend import ConnectedRuntime
from sandbox.link.messages import RunRef, Used
from sandbox.spec import RunResult

EVERY_SECONDS = 30.0

log = structlog.get_logger("usage_events")


@dataclass(frozen=True)
class _Told:
    at: datetime
    when: float


class UsageEvents:
    """At most one event a run in `EVERY_SECONDS`; the newest sample counts, and one that comes late is left out."""

    def __init__(self, db: Database, cache: Cache | None) -> None:
        self._db = db
        self._cache = cache
        self._told: dict[tuple[UUID, RunRef], _Told] = {}

    async def take(self, runtime: ConnectedRuntime, used: Used) -> None:
        """Tell of a sample, unless one was just told; it is only for watching, so what fails is left out."""
        run = RunRef(run_id=used.run_id, attempt=used.attempt)
        before = self._told.get((runtime.runtime_id, run))
        now = time.monotonic()
        if before is not None and (used.at <= before.at or now - before.when < EVERY_SECONDS):
            return
        try:
            await self._tell(runtime, run, used)
        except Exception as error:
            log.warning("usage_not_told", run=str(run.run_id), why=str(error)[:200])
            return
        self._told[runtime.runtime_id, run] = _Told(used.at, now)

    async def _tell(self, runtime: ConnectedRuntime, run: RunRef, used: Used) -> None:
        async with self._db.tenant_session(runtime.tenant_id) as session:
            row = await rows.get(session, run.run_id)
            if row is None or not is_held_by(row, runtime.runtime_id, run.attempt):
                return
            data = used.model_dump(mode="json", exclude={"type", "at"})
            await events.add(session, runtime.tenant_id, row.work_item_id, EventKind.RESOURCE, data, at=used.at)
        await events.ring(self._cache, runtime.tenant_id, row.work_item_id)

    async def last(
        self, session: AsyncSession, runtime: ConnectedRuntime, work_item_id: UUID, run: RunRef, result: RunResult
    ) -> None:
        """Tell, in the transaction of its end, what an attempt has used in all."""
        self._told.pop((runtime.runtime_id, run), None)
        if result.started_at is None:
            return
        data = {
            "run_id": str(run.run_id),
            "attempt": run.attempt,
            "cpu_seconds": result.cpu_seconds,
            "memory_peak_bytes": result.memory_peak_bytes,
            "wall_seconds": result.wall_seconds,
            "output_bytes": result.output_bytes,
            "last": True,
        }
        source = f"resource/{run.run_id}/{run.attempt}/last"
        await events.add(session, runtime.tenant_id, work_item_id, EventKind.RESOURCE, data, source=source)

    def forget(self, runtime_id: UUID) -> None:
        """The runtime's connection ended."""
        self._told = {key: told for key, told in self._told.items() if key[0] != runtime_id}
