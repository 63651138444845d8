"""Receives the agent's artifacts from the guest.

INVARIANT: no name that the agent chose ever names a file out here. Parts and wholes are named by a
constant and by digest; the agent's path is a value in a list.
"""

from __future__ import annotations

import hashlib
import os
from io import BufferedWriter
from pathlib import Path

from pydantic import ValidationError

from sandbox.guest_frames import ArtifactBegin, ArtifactEnd, GuestProtocolError, Skipped
from sandbox.run_folder import sync_folder
from sandbox.spec import Artifact

MAX_ARTIFACTS = 256
_MAX_SKIPPED = 256


class ArtifactIntake:
    """One run's artifacts.

    Attributes:
        kept: By path, durable.
        recorded: How often something was kept, also under the same path.
        skipped: What was refused or could not be an artifact, with the reason.
    """

    def __init__(self, folder: Path, record: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self.recorded = 0
        self._record = record
        self.kept: dict[str, Artifact] = {}
        self.skipped: dict[str, str] = {}
        self._load()
        self._open: _Incoming | None = None

    def _load(self) -> None:
        if not self._record.exists():
            return
        whole, _, cut_off = self._record.read_text().rpartition("\n")
        for line in whole.splitlines():
            artifact = Artifact.model_validate_json(line)
            self.kept[artifact.path] = artifact
            self.recorded += 1
        if cut_off:
            self._record.write_text(whole + "\n" if whole else "")

    @property
    def done(self) -> list[str]:
        """Paths that need not be sent again."""
        return [*self.kept, *self.skipped]

    def begin(self, begin: ArtifactBegin) -> None:
        """A file follows; whether it is wanted or not, its bytes will come."""
        self.abandon()
        self._open = _Incoming(begin, self.folder / "incoming.part", self._refusal(begin))

    def _refusal(self, begin: ArtifactBegin) -> str | None:
        if begin.path in self.kept:
            return "it is here already"
        try:
            Artifact(path=begin.path, sha256="0" * 64, size=begin.size)
        except ValidationError:
            return "its path does not stay inside the output folder"
        if len(self.kept) >= MAX_ARTIFACTS:
            return f"more than {MAX_ARTIFACTS} artifacts"
        if begin.size > self.room(begin.path):
            return f"over the limit of {self.limit} bytes for all artifacts"
        return None

    def room(self, path: str) -> int:
        """Bytes that a file at this path may have."""
        return self.limit - sum(artifact.size for artifact in self.kept.values() if artifact.path != path)

    def data(self, payload: bytes) -> None:
        """Bytes of the open file."""
        if self._open is None:
            raise GuestProtocolError("artifact data without its head")
        self._open.write(payload)

    def end(self, end: ArtifactEnd) -> str:
        """The open file is whole: keeps it durably and returns its path."""
        incoming = self._open
        if incoming is None or incoming.path != end.path:
            raise GuestProtocolError("an artifact's end without its head")
        self._open = None
        digest = incoming.close()
        if incoming.refusal is not None:
            if end.path not in self.kept:
                self.skip(Skipped(path=end.path, reason=incoming.refusal))
            return end.path
        if digest != end.sha256 or incoming.size > incoming.promised:
            raise GuestProtocolError("an artifact that is not what its end says")
        self.keep(Artifact(path=end.path, sha256=digest, size=incoming.size), incoming.part)
        return end.path

    def keep(self, artifact: Artifact, part: Path) -> None:
        """Keeps a whole file durably; it replaces what was kept under the same path."""
        part.replace(self.folder / artifact.sha256)
        sync_folder(self.folder)
        with self._record.open("a") as file:
            file.write(artifact.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())
        replaced = self.kept.get(artifact.path)
        self.kept[artifact.path] = artifact
        self.recorded += 1
        if replaced is not None and all(kept.sha256 != replaced.sha256 for kept in self.kept.values()):
            (self.folder / replaced.sha256).unlink(missing_ok=True)

    def skip(self, skipped: Skipped) -> None:
        """Remembers why an entry is no artifact."""
        if len(self.skipped) < _MAX_SKIPPED:
            self.skipped[skipped.path[:1024]] = skipped.reason[:200]

    def abandon(self) -> None:
        """Drops a file that was cut off."""
        if self._open is not None:
            self._open.close()
            self._open = None


class _Incoming:
    """The one file that is being received; a refused one is read and thrown away."""

    def __init__(self, begin: ArtifactBegin, part: Path, refusal: str | None) -> None:
        self.path = begin.path
        self.promised = begin.size
        self.refusal = refusal
        self.part = part
        self.size = 0
        self._digest = hashlib.sha256()
        self._file: BufferedWriter | None = None if refusal else part.open("wb")

    def write(self, payload: bytes) -> None:
        self.size += len(payload)
        if self.size > self.promised:
            raise GuestProtocolError("an artifact longer than it was said to be")
        if self._file is not None:
            self._digest.update(payload)
            self._file.write(payload)

    def close(self) -> str:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
        return self._digest.hexdigest()
