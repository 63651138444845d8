"""Reading a run's output as it comes: the durable chunks, then the tail; resumable from any offset."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from models.domain.errors import InvalidInput, NotFound
from models.domain.principal import Principal
from models.domain.work_item import WorkItemStatus
from models.repositories import log_chunks
from models.repositories import work_items as item_rows
from models.storage.blobs import BlobStore
from models.storage.cache import Bell, Cache, TailRecord
from models.storage.db import Database
from models.tables.execution import LogChunkRow
from sandbox.link.messages import LogRecord

POLL_SECONDS = 1.0
_POSITION = re.compile(r"(\d{1,9})\.(\d{1,18})", re.ASCII)


@dataclass(frozen=True)
class LogPiece:
    """Bytes of one attempt's combined output.

    Attributes:
        offset: Of its first byte.
        data: The bytes; not cut at characters.
    """

    attempt: int
    offset: int
    stream: str
    at: datetime
    data: bytes

    @property
    def event_id(self) -> str:
        """`attempt.offset` just past this piece: what `Last-Event-ID` gives back."""
        return f"{self.attempt}.{self.offset + len(self.data)}"


@dataclass
class _Reader:
    """How far one reader has come."""

    attempt: int
    offset: int
    tail_id: str = ""
    ahead: list[LogPiece] = field(default_factory=list[LogPiece])
    """Pieces of the tail that do not follow yet: what lies between is in the store, or will be."""

    def take(self, piece: LogPiece) -> LogPiece | None:
        """The part of `piece` that comes next; None when it was read before."""
        if piece.attempt > self.attempt:
            self.attempt, self.offset = piece.attempt, 0
        skip = self.offset - piece.offset
        if piece.attempt < self.attempt or skip >= len(piece.data):
            return None
        rest = replace(piece, offset=piece.offset + max(skip, 0), data=piece.data[max(skip, 0) :])
        self.offset = rest.offset + len(rest.data)
        return rest

    def follows(self, piece: LogPiece) -> bool:
        """Whether nothing is missing before `piece`."""
        if piece.attempt == self.attempt:
            return piece.offset <= self.offset
        return piece.attempt < self.attempt or piece.offset == 0


async def read(
    db: Database,
    blobs: BlobStore,
    cache: Cache | None,
    principal: Principal,
    work_item_id: UUID,
    *,
    after: str = "",
    follow: bool = True,
    tenant_id: UUID | None = None,
) -> AsyncIterator[LogPiece]:
    """Yield the output from `after` (`attempt.offset`, empty: from the start), and go on until the run has ended.

    With `follow` False it yields what there is now, and no more. The principal is of the item's company, or of its
    holding; `tenant_id` is that of the item where the caller knows it.

    Raises:
        NotFound: There is no such item (at the first step of the iteration).
        InvalidInput: `after` cannot be read.
    """
    reader = _start(after)
    owner, run_id, _ = await _where(db, principal, work_item_id)
    if tenant_id not in (None, owner):
        raise NotFound(f"there is no work item {work_item_id}")
    async with _bell(cache, owner, f"log:{run_id}") as bell:
        while True:
            # Read before the chunks: an end that is seen here has all its chunks in the store.
            _, run_id, ended = await _where(db, principal, work_item_id)
            seen = False
            async for piece in _stored(db, blobs, principal, run_id, reader):
                seen = True
                yield piece
            if seen:
                continue
            if ended or not follow:
                return
            for piece in await _from_tail(cache, owner, run_id, reader):
                seen = True
                yield piece
            if not seen:
                await bell.wait(POLL_SECONDS)


def _start(after: str) -> _Reader:
    if not after:
        return _Reader(0, 0)
    found = _POSITION.fullmatch(after)
    if found is None:
        raise InvalidInput("a position in a log is written attempt.offset, such as 1.2048")
    return _Reader(int(found[1]), int(found[2]))


async def _where(db: Database, principal: Principal, work_item_id: UUID) -> tuple[UUID, UUID, bool]:
    async with db.session_for(principal) as session:
        item = await item_rows.get(session, work_item_id)
        if item is None:
            raise NotFound(f"there is no work item {work_item_id}")
        run = await item_rows.latest_run(session, work_item_id)
    ended = WorkItemStatus(item.status).is_final or (run is not None and run.status == "ended")
    return item.tenant_id, UUID(item.spec["run_id"]), ended


@asynccontextmanager
async def _bell(cache: Cache | None, tenant_id: UUID, channel: str) -> AsyncGenerator[Bell]:
    if cache is None:
        yield Bell()
        return
    async with cache.listen(tenant_id, channel) as bell:
        yield bell


async def _stored(
    db: Database, blobs: BlobStore, principal: Principal, run_id: UUID, reader: _Reader
) -> AsyncIterator[LogPiece]:
    async with db.session_for(principal) as session:
        chunks = await log_chunks.after(session, run_id, reader.attempt, reader.offset)
    for chunk in chunks:
        for piece in await _pieces(blobs, chunk):
            rest = reader.take(piece)
            if rest is not None:
                yield rest


async def _pieces(blobs: BlobStore, chunk: LogChunkRow) -> list[LogPiece]:
    lines = (await blobs.get(chunk.sha256)).splitlines()
    records = [LogRecord.model_validate_json(line) for line in lines]
    return [LogPiece(chunk.attempt, record.offset, record.stream.value, record.at, record.data) for record in records]


async def _from_tail(cache: Cache | None, tenant_id: UUID, run_id: UUID, reader: _Reader) -> list[LogPiece]:
    if cache is None:
        return []
    records = await cache.tail(tenant_id, run_id, reader.tail_id)
    if records:
        reader.tail_id = records[-1].id
    waiting: Sequence[LogPiece] = [*reader.ahead, *(_piece(record) for record in records)]
    reader.ahead = []
    found: list[LogPiece] = []
    for piece in waiting:
        if not reader.follows(piece):
            reader.ahead.append(piece)
        elif (rest := reader.take(piece)) is not None:
            found.append(rest)
    return found


def _piece(record: TailRecord) -> LogPiece:
    return LogPiece(record.attempt, record.offset, record.stream, datetime.fromisoformat(record.at), record.data)
