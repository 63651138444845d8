"""Making runs' output durable: records collected for a moment, written as a chunk, acknowledged only then."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from models.repositories import runs as rows
from models.services import events
from models.services.output_events import output_events
from models.services.runs import is_held_by
from models.storage.blobs import BlobStore
from models.storage.cache import Cache, TailRecord
from models.storage.db import Database
from models.tables.execution import LogChunkRow
from sandbox.link.messages import LogRecord, RunRef

CHUNK_BYTES = 256 * 1024
FLUSH_SECONDS = 0.25
"""An end waits for the last acknowledgement, so this is what a run's end is later by at most."""
RETRY_SECONDS = 1.0

log = structlog.get_logger("log_writer")

OnDurable = Callable[[UUID, RunRef, int], Awaitable[None]]
"""Told (runtime, run, offset) when everything before the offset is durable."""


class OutOfStepError(Exception):
    """Another broker has written meanwhile: the runtime must say again what was not acknowledged."""


@dataclass
class _Open:
    """The output of one attempt as this broker has it."""

    tenant_id: UUID
    runtime_id: UUID
    run: RunRef
    durable: int
    """Offset before which all of it is in the store, by the run's row."""
    end: int
    refused: bool = False
    records: list[LogRecord] = field(default_factory=list[LogRecord])
    size: int = 0
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    timer: asyncio.Task[None] | None = None


class LogWriter:
    """Collects what runtimes say and writes it in chunks.

    Args:
        on_durable: Sends the acknowledgement; None in tests that ask by `add` alone.
    """

    def __init__(
        self, db: Database, blobs: BlobStore, cache: Cache | None, on_durable: OnDurable | None = None
    ) -> None:
        self._db = db
        self._blobs = blobs
        self._cache = cache
        self.on_durable = on_durable
        self._open: dict[RunRef, _Open] = {}

    async def add(self, tenant_id: UUID, runtime_id: UUID, run: RunRef, records: Sequence[LogRecord]) -> int:
        """Take records in; answers the offset before which all is durable.

        A runtime that does not hold the run is answered the end of what it said, so that it can come to its own end;
        nothing of it is kept.

        Raises:
            OutOfStepError: The records do not follow what is there.
        """
        opened = await self._opened(tenant_id, runtime_id, run)
        if opened.refused:
            return records[-1].end if records else opened.end
        fresh = _beyond(opened.end, records)
        if fresh and fresh[0].offset != opened.end:
            del self._open[run]
            raise OutOfStepError(f"output begins at {fresh[0].offset}, expected at {opened.end}")
        if fresh:
            opened.records.extend(fresh)
            opened.end = fresh[-1].end
            opened.size += sum(len(record.data_b64) for record in fresh)
            if self._cache is not None:
                await self._cache.append_log(tenant_id, run.run_id, [_tail(run, record) for record in fresh])
        if opened.size >= CHUNK_BYTES:
            await self._write(opened)
        elif opened.records and opened.timer is None:
            opened.timer = asyncio.create_task(self._write_soon(opened))
        return opened.durable

    async def finish(self, run: RunRef) -> None:
        """Write what is collected of a run and forget it; raises when it cannot be written."""
        opened = self._open.get(run)
        if opened is not None:
            await self._write(opened)
            self._forget(run)

    async def let_go(self, runtime_id: UUID) -> None:
        """The runtime's connection ended: write what can be, and forget; it says the rest again when it is back."""
        for run, opened in list(self._open.items()):
            if opened.runtime_id == runtime_id:
                try:
                    await self._write(opened)
                except Exception as error:
                    log.warning("output_let_go", run=str(run.run_id), why=str(error)[:200])
                self._forget(run)

    def _forget(self, run: RunRef) -> None:
        opened = self._open.pop(run, None)
        if opened is not None and opened.timer is not None:
            opened.timer.cancel()

    async def _opened(self, tenant_id: UUID, runtime_id: UUID, run: RunRef) -> _Open:
        opened = self._open.get(run)
        if opened is not None and opened.runtime_id == runtime_id:
            return opened
        async with self._db.tenant_session(tenant_id) as session:
            row = await rows.get(session, run.run_id)
        held = row is not None and row.tenant_id == tenant_id and is_held_by(row, runtime_id, run.attempt)
        offset = row.log_offset if row is not None and held else 0
        opened = _Open(tenant_id, runtime_id, run, durable=offset, end=offset, refused=not held)
        if held:
            self._open[run] = opened
        return opened

    async def _write_soon(self, opened: _Open) -> None:
        delay = FLUSH_SECONDS
        while True:
            await asyncio.sleep(delay)
            try:
                # Not cut off by `_forget`: a chunk is written whole or not at all.
                await asyncio.shield(self._write(opened))
            except OutOfStepError:
                self._open.pop(opened.run, None)
                return
            except Exception as error:
                log.warning("output_not_written", run=str(opened.run.run_id), why=str(error)[:200])
                delay = RETRY_SECONDS
            else:
                opened.timer = None
                if opened.records:
                    continue
                return

    async def _write(self, opened: _Open) -> None:
        async with opened.writing:
            records = list(opened.records)
            if not records:
                return
            content = "".join(record.model_dump_json() + "\n" for record in records).encode()
            sha256 = await self._blobs.put(content)
            end = records[-1].end
            if not await self._commit(opened, records, sha256, len(content)):
                opened.refused = True
            del opened.records[: len(records)]
            opened.size = sum(len(record.data_b64) for record in opened.records)
            opened.durable = end
        if self.on_durable is not None:
            await self.on_durable(opened.runtime_id, opened.run, end)

    async def _commit(self, opened: _Open, records: Sequence[LogRecord], sha256: str, size: int) -> bool:
        run, start, end = opened.run, records[0].offset, records[-1].end
        async with self._db.tenant_session(opened.tenant_id) as session:
            row = await rows.lock(session, run.run_id)
            if row is None or not is_held_by(row, opened.runtime_id, run.attempt):
                return False
            if row.log_offset >= end:
                return True  # another broker was told the same
            if row.log_offset != start:
                raise OutOfStepError(f"the row is at {row.log_offset}, this chunk at {start}")
            session.add(
                LogChunkRow(
                    tenant_id=opened.tenant_id,
                    run_id=run.run_id,
                    attempt=run.attempt,
                    start_offset=start,
                    end_offset=end,
                    sha256=sha256,
                    size=size,
                )
            )
            row.log_offset = end
            session.add(row)
            await events.add_many(session, opened.tenant_id, output_events(row.work_item_id, run, records))
        await events.ring(self._cache, opened.tenant_id, row.work_item_id)
        return True


def _beyond(offset: int, records: Sequence[LogRecord]) -> list[LogRecord]:
    """The records without what lies before `offset`."""
    fresh: list[LogRecord] = []
    for record in records:
        if record.offset >= offset:
            fresh.append(record)
        elif record.end > offset:
            rest = record.data[offset - record.offset :]
            data = base64.b64encode(rest).decode()
            fresh.append(record.model_copy(update={"offset": offset, "data_b64": data}))
    return fresh


def _tail(run: RunRef, record: LogRecord) -> TailRecord:
    return TailRecord("", run.attempt, record.offset, record.stream.value, record.at.isoformat(), record.data)
