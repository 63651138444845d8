"""What the runtime must still know after it was killed: placements, their state, used warrants."""

from __future__ import annotations

import hashlib
import os
import shutil
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sandbox.link.lease import boot_id
from sandbox.link.messages import RunRef
from sandbox.run_folder import RunFolder, sync_folder, write_durably
from sandbox.spec import Continuation, RunResult, RunSpec
from sandbox.warrant import CLOCK_LEEWAY_SECONDS, WarrantClaims


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class Placement(_Record):
    """What was placed; written before ``placed`` is said.

    Attributes:
        warrant: With it the run's requests go out, also those of a later process. Empty in records of earlier versions.
    """

    run: RunRef
    spec: RunSpec
    jti: str
    continuation: Continuation | None = None
    warrant: str = Field(default="", repr=False)


class StartRecord(_Record):
    """The container that runs it."""

    container_id: str
    started_at: datetime


class LeaseRecord(_Record):
    """A deadline on the boot clock of one boot."""

    boot: str
    deadline: float


class WarrantUsedError(Exception):
    """This warrant has been used here before."""


class PlacementStore:
    """The runtime's state folder.

    Args:
        state_dir: Its own, closed to others.
        run_dir: Parent of what is bind-mounted; the same path for the Docker engine.
    """

    def __init__(self, state_dir: Path, run_dir: Path) -> None:
        self._state = state_dir
        self._runs = run_dir
        self._used = state_dir / "used-warrants"
        for folder in (state_dir, run_dir, self._used, state_dir / "runs"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._boot = boot_id()

    def folder(self, run: RunRef) -> RunFolder:
        """Names a run's folders."""
        return RunFolder.of(self._state, self._runs, run)

    def use_warrant(self, claims: WarrantClaims) -> None:
        """Burns a warrant, durably; raises ``WarrantUsedError`` the second time."""
        path = self._used / hashlib.sha256(claims.jti.encode()).hexdigest()
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise WarrantUsedError(claims.jti) from None
        with os.fdopen(descriptor, "w") as file:
            file.write(str(claims.claim_before))
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self._used)

    def forget_old_warrants(self, now: float) -> None:
        """Drops those that are refused by their claim-before anyway (with an hour to spare)."""
        for path in self._used.iterdir():
            text = path.read_text()
            if text and float(text) + CLOCK_LEEWAY_SECONDS + 3600 < now:
                path.unlink(missing_ok=True)

    def record(self, placement: Placement) -> RunFolder:
        """Writes a placement down; durable when this returns."""
        folder = self.folder(placement.run)
        folder.make()
        write_durably(folder.state / "placement.json", placement.model_dump_json().encode())
        sync_folder(self._state / "runs")
        return folder

    def placements(self) -> list[Placement]:
        """Returns all that are recorded. A folder without a whole record was never answered for."""
        found: list[Placement] = []
        for state in (self._state / "runs").iterdir():
            try:
                found.append(Placement.model_validate_json((state / "placement.json").read_bytes()))
            except (OSError, ValidationError):
                shutil.rmtree(state, ignore_errors=True)
                shutil.rmtree(self._runs / state.name, ignore_errors=True)
        return found

    def knows(self, run: RunRef) -> bool:
        """True while the run is recorded."""
        return (self.folder(run).state / "placement.json").exists()

    def write_start(self, run: RunRef, start: StartRecord) -> None:
        """Remembers the container."""
        write_durably(self.folder(run).state / "started.json", start.model_dump_json().encode())

    def start(self, run: RunRef) -> StartRecord | None:
        """Returns the container, if it was started."""
        text = _read(self.folder(run).state / "started.json")
        return StartRecord.model_validate_json(text) if text else None

    def write_result(self, run: RunRef, result: RunResult) -> None:
        """Remembers the result until it is acknowledged."""
        write_durably(self.folder(run).state / "result.json", result.model_dump_json().encode())

    def result(self, run: RunRef) -> RunResult | None:
        """Returns the result, if it has ended."""
        text = _read(self.folder(run).state / "result.json")
        return RunResult.model_validate_json(text) if text else None

    def write_lease(self, run: RunRef, deadline: float) -> None:
        """Remembers the lease for a process that comes after this one (not for a power cut)."""
        path = self.folder(run).state / "lease.json"
        if path.parent.exists():
            partial = path.with_name("lease.partial")
            partial.write_text(LeaseRecord(boot=self._boot, deadline=deadline).model_dump_json())
            partial.replace(path)

    def lease(self, run: RunRef) -> float:
        """Returns the deadline; long past when it is unknown or of an earlier boot."""
        text = _read(self.folder(run).state / "lease.json")
        if not text:
            return 0.0
        record = LeaseRecord.model_validate_json(text)
        return record.deadline if record.boot == self._boot else 0.0

    def forget(self, run: RunRef) -> None:
        """Removes all of a run. Its used warrant stays."""
        self.folder(run).remove()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
