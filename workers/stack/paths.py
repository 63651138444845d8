"""Where everything of one embedded stack lies."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

# A Unix socket's path has at most 107 bytes. The longest we leave to others are containerd's (48 bytes below the
# data folder) and a run's own (73, below the run folder).
LONGEST_DATA = 58
LONGEST_DATA_WITH_RUNS = 34


@dataclass(frozen=True)
class Paths:
    """The folders and files of one stack, all below `data` (and `cache`), but for what others must reach.

    Attributes:
        data: The stack's folder, absolute.
        cache: What can be shared between stacks: built binaries, Go's caches, PostgreSQL's files.
    """

    data: Path
    cache: Path

    @classmethod
    def of(cls, data: Path, cache: Path | None = None) -> Paths:
        """Paths below a data folder, absolute whatever the caller's folder is."""
        data = data.resolve()
        return cls(data, (cache or data / "cache").resolve())

    @property
    def tag(self) -> str:
        """Eight characters that tell this stack from others on the machine."""
        return hashlib.sha256(str(self.data).encode()).hexdigest()[:8]

    @property
    def config(self) -> Path:
        return self.data / "config.env"

    @property
    def secrets(self) -> Path:
        return self.data / "secrets"

    @property
    def stamps(self) -> Path:
        return self.data / "stamps"

    @property
    def log(self) -> Path:
        return self.data / "log"

    @property
    def supervisor(self) -> Path:
        return self.data / "supervisor"

    @property
    def docker(self) -> Path:
        return self.data / "docker"

    @property
    def docker_socket(self) -> Path:
        return self.docker / "docker.sock"

    @property
    def valkey(self) -> Path:
        return self.data / "valkey"

    @property
    def temporal(self) -> Path:
        return self.data / "temporal"

    @property
    def blobs(self) -> Path:
        return self.data / "blobs"

    @property
    def binaries(self) -> Path:
        return self.cache / "bin"

    @property
    def guest(self) -> Path:
        return self.binaries / "awgp-guest"

    @property
    def runs(self) -> Path:
        """Root of the runs' folders, short enough for the sockets in them."""
        if len(str(self.data)) <= LONGEST_DATA_WITH_RUNS:
            return self.data / "run"
        return Path(tempfile.gettempdir()) / f"awgp-{os.getuid()}-{self.tag}"

    def runtime(self, tenant: str) -> Path:
        """State folder of a tenant's host runtime."""
        return self.data / "runtime" / tenant

    @property
    def postgres(self) -> Path:
        """PostgreSQL's home. As root it runs under another user, who must be able to walk there."""
        if os.getuid() != 0 or reachable_by_others(self.data.parent):
            return self.data / "postgres"
        return Path("/var/lib") / f"awgp-{self.tag}" / "postgres"

    def make(self) -> None:
        """Create the folders; the data folder can be walked through but not listed by others."""
        for folder in (
            self.data,
            self.cache,
            self.stamps,
            self.log,
            self.supervisor,
            self.docker,
            self.valkey,
            self.temporal,
            self.blobs,
            self.binaries,
            self.runs,
        ):
            folder.mkdir(parents=True, exist_ok=True)
        self.data.chmod(0o711)
        for folder in (self.supervisor, self.docker, self.valkey, self.temporal, self.blobs, self.log, self.runs):
            folder.chmod(0o700)


def reachable_by_others(folder: Path) -> bool:
    """Whether a user with no rights of his own can walk down to a folder."""
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))
