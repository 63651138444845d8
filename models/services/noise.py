"""Unauthenticated noise is counted by kind and day, never chained: nobody has a trail that it belongs to."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import structlog

from models.storage.db import Database

FLUSH_SECONDS = 1.0
"""A flood of bad tokens costs one write a second and kind, not one a request."""

log = structlog.get_logger("noise")


class NoiseMeter:
    """Counts in memory and writes the sums; what a process had not written when it was killed is lost, and may be."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._counts: Counter[str] = Counter()
        self._flusher: asyncio.Task[None] | None = None

    def count(self, kind: str) -> None:
        """Count one; never waits, never fails."""
        self._counts[kind] += 1
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush_soon())

    async def flush(self) -> None:
        """Write what was counted."""
        while self._counts:
            kind, many = self._counts.popitem()
            try:
                await self._db.change("select count_noise(:what, :many)", what=kind, many=many)
            except Exception as error:
                log.warning("noise_not_written", kind=kind, many=many, why=str(error)[:200])

    async def close(self) -> None:
        """Write the rest."""
        if self._flusher is not None:
            self._flusher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._flusher
        await self.flush()

    async def _flush_soon(self) -> None:
        await asyncio.sleep(FLUSH_SECONDS)
        await self.flush()
