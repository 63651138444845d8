"""When a sandbox stood still: that time is neither counted against its wall time nor billed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)
    seconds: float = 0.0
    since: datetime | None = None


class Pauses:
    """The pauses of one sandbox, over restarts of the runtime.

    Args:
        folder: The run's state folder.

    Attributes:
        wanted: Whether it is to stand still.
        told: Set when that has changed.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "pauses.json"
        self._record = _Record()
        if self._path.exists():
            self._record = _Record.model_validate_json(self._path.read_bytes())
        self.wanted = self.now
        self.told = asyncio.Event()

    @property
    def now(self) -> bool:
        """Whether it stands still."""
        return self._record.since is not None

    def want(self, paused: bool) -> None:
        """Says what it is to do from now on."""
        self.wanted = paused
        self.told.set()

    def begin(self, at: datetime) -> None:
        """It stands still from now on."""
        if not self.now:
            self._keep(_Record(seconds=self._record.seconds, since=at))

    def end(self, at: datetime) -> None:
        """It goes on."""
        if self.now:
            self._keep(_Record(seconds=self.seconds(at)))

    def seconds(self, until: datetime) -> float:
        """Returns how long it has stood still in all."""
        since = self._record.since
        return self._record.seconds + (0.0 if since is None else max(0.0, (until - since).total_seconds()))

    def _keep(self, record: _Record) -> None:
        self._record = record
        partial = self._path.with_suffix(".partial")
        partial.write_text(record.model_dump_json())
        partial.replace(self._path)

    def found(self, paused: bool) -> None:
        """What the engine says to a runtime that came back goes before what was written down."""
        now = datetime.now(UTC)
        if paused:
            self.begin(now)
        else:
            self.end(now)
        self.wanted = paused
