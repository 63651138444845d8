"""Where one attempt of a run keeps what must outlive the runtime's process."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from sandbox.link.messages import RunRef


def run_key(run: RunRef) -> str:
    """Returns the name of the run's folders and of its container."""
    return f"{run.run_id}.{run.attempt}"


def write_durably(path: Path, content: bytes) -> None:
    """Replaces a file so that after a power cut it is whole, old or new; only its owner may read it."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class RunFolder:
    """The two folders of a run.

    Attributes:
        state: The runtime's own; the sandbox never sees it.
        mounts: Bind-mounted read-only; must have the same path for the Docker engine.
    """

    state: Path
    mounts: Path

    @classmethod
    def of(cls, state_dir: Path, run_dir: Path, run: RunRef) -> RunFolder:
        """Names the folders of a run; makes nothing."""
        return cls(state_dir / "runs" / run_key(run), run_dir / run_key(run))

    @property
    def bridge(self) -> Path:
        """Holds ``guest.sock`` and ``guest.json``; /awgp/run inside."""
        return self.mounts / "run"

    @property
    def inputs(self) -> Path:
        """/awgp/in inside."""
        return self.mounts / "in"

    @property
    def artifacts(self) -> Path:
        """What was received, named by digest."""
        return self.state / "artifacts"

    def make(self) -> None:
        """Makes both; the parents stay closed to other users, since the socket is open to all."""
        self.artifacts.mkdir(parents=True, exist_ok=True)
        self.make_mounts()

    def make_mounts(self) -> None:
        """Makes those that a sandbox sees."""
        self.mounts.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.mounts, self.bridge, self.inputs):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)

    def renew_bridge(self) -> None:
        """Makes another folder for the next sandbox: one that has this one mounted never sees the new one."""
        (self.bridge / "guest.json").unlink(missing_ok=True)
        if self.bridge.exists():
            self.bridge.rename(self.mounts / f"run-{time.monotonic_ns()}")
        self.make()

    def adopt(self, mounts: Path) -> None:
        """Takes over the mounts of a prepared sandbox; it keeps them whatever they are called out here."""
        shutil.rmtree(self.mounts, ignore_errors=True)
        mounts.rename(self.mounts)

    def remove(self) -> None:
        """Forgets the run."""
        shutil.rmtree(self.mounts, ignore_errors=True)
        shutil.rmtree(self.state, ignore_errors=True)
