"""A file that the agent saves in mid-run, over the bridge: counted, digested and kept out here.

INVARIANT: as with the guest's, no name that the agent chose names a file; parts are named by a number.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from io import FileIO
from pathlib import Path
from urllib.parse import unquote_to_bytes

from pydantic import ValidationError

from sandbox.agent_problems import AgentRefusedError
from sandbox.artifact_intake import MAX_ARTIFACTS, ArtifactIntake
from sandbox.spec import Artifact

MOST_AT_ONCE = 8
MOST_SAVES = 4096
"""In one run, replaced ones too: each leaves a line in the record."""


class Savings:
    """The files of one run that are being saved.

    Args:
        intake: Keeps them, beside those that the guest brings at the end. A path that was saved is not brought again.
    """

    def __init__(self, intake: ArtifactIntake) -> None:
        self._intake = intake
        self._slots = set(range(MOST_AT_ONCE))
        self._held = 0

    def begin(self, escaped: str, size: int | None) -> Saving:
        """Opens a file.

        Args:
            escaped: Its path as in the request, percent-encoded.
            size: What the request says of its length.

        Raises:
            AgentRefusedError: Its path, or the run's limits, do not allow it.
        """
        path = _path(escaped)
        if path not in self._intake.kept and len(self._intake.kept) + self._busy >= MAX_ARTIFACTS:
            raise _over(f"A run has {MAX_ARTIFACTS} artifacts at most.")
        if self._intake.recorded >= MOST_SAVES:
            raise _over(f"A run saves {MOST_SAVES} times at most.")
        if size is not None:
            self.check(path, size)
        if not self._slots:
            detail = f"{MOST_AT_ONCE} files are being saved already."
            raise AgentRefusedError(503, "busy", "Too many files at once", detail, retry_after=1)
        return Saving(self, path, self._slots.pop())

    @property
    def _busy(self) -> int:
        return MOST_AT_ONCE - len(self._slots)

    def check(self, path: str, more: int) -> None:
        """Raises ``AgentRefusedError`` when there is no room for so many bytes more."""
        left = self._intake.room(path) - self._held
        if more > left:
            raise _over(f"{max(0, left)} bytes are left of the run's {self._intake.limit} for all artifacts.")

    def hold(self, path: str, more: int) -> None:
        """Counts bytes that arrived."""
        self.check(path, more)
        self._held += more

    def release(self, slot: int, size: int) -> None:
        """A file is done, kept or not."""
        self._slots.add(slot)
        self._held -= size

    def part(self, slot: int) -> Path:
        """Where a file is written while it comes."""
        return self._intake.folder / f"saving-{slot}.part"

    def keep(self, artifact: Artifact, part: Path) -> None:
        """Makes it one of the run's artifacts."""
        self._intake.keep(artifact, part)


class Saving:
    """One file; ``close`` must be called, whatever happened."""

    def __init__(self, savings: Savings, path: str, slot: int) -> None:
        self._savings = savings
        self._path = path
        self._slot = slot
        self._part = savings.part(slot)
        self._file: FileIO = self._part.open("wb", buffering=0)
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, piece: bytes) -> None:
        """Takes bytes; raises ``AgentRefusedError`` where there is no room for them."""
        self._savings.hold(self._path, len(piece))
        self._size += len(piece)
        self._digest.update(piece)
        view = memoryview(piece)
        while view:
            view = view[self._file.write(view) :]

    async def keep(self) -> Artifact:
        """The file is whole: makes it durable and one of the run's artifacts."""
        await asyncio.to_thread(os.fsync, self._file.fileno())
        artifact = Artifact(path=self._path, sha256=self._digest.hexdigest(), size=self._size)
        self._savings.keep(artifact, self._part)
        return artifact

    def close(self) -> None:
        """Lets go of it; what was not kept is gone."""
        self._file.close()
        self._part.unlink(missing_ok=True)
        self._savings.release(self._slot, self._size)


def _path(escaped: str) -> str:
    try:
        path = unquote_to_bytes(escaped).decode()
        return Artifact(path=path, sha256="0" * 64, size=0).path
    except (UnicodeDecodeError, ValidationError) as error:
        detail = "It must be a plain relative path in UTF-8, without '..', of at most 1024 bytes."
        raise AgentRefusedError(400, "bad-request", "This is no path for an artifact", detail) from error


def _over(detail: str) -> AgentRefusedError:
    return AgentRefusedError(413, "too-large", "No room for this artifact", detail)
