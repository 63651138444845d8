"""What a run is and how it can end: the values both sides of the link agree on.

Pure: no clock, no I/O. The digest of a ``RunSpec`` is what a warrant names, so a spec that
differs in one byte is not the one that was approved.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated
from uuid import UUID

import rfc8785
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MIB = 1024 * 1024

_HEX_SHA256 = r"^[0-9a-f]{64}$"


def _relative_inside(path: str) -> str:
    """Refuses any path that could name a file outside of its folder."""
    pure = PurePosixPath(path)
    if not path or "\0" in path or pure.is_absolute() or ".." in pure.parts or str(pure) != path:
        raise ValueError("must be a plain relative path without '..'")
    if path == "." or len(path.encode()) > 1024:
        raise ValueError("must name a file, in at most 1024 bytes")
    return path


_CONTROLS = dict.fromkeys({*range(32), *range(0x7F, 0xA0)} - {ord("\t"), ord("\n")})


def _printable(words: str) -> str:
    """No database can hold a NUL, and no terminal should obey what an agent wrote."""
    return words.translate(_CONTROLS)


Words = Annotated[str, AfterValidator(_printable)]
"""Text for people that somebody outside wrote."""
Sha256 = Annotated[str, Field(pattern=_HEX_SHA256)]
FilePath = Annotated[str, AfterValidator(_relative_inside)]


def _shown_as_it_is(path: str) -> str:
    """Refuses a name that a list shows as another one: control characters, and those that turn text round."""
    if not path.isprintable():
        raise ValueError("must have no characters that cannot be shown")
    return path


ArtifactPath = Annotated[FilePath, AfterValidator(_shown_as_it_is)]


class Value(BaseModel):
    """A frozen value that accepts no field it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(Value):
    """Everything a sandbox may use; each one is enforced outside of the agent."""

    memory_bytes: int = Field(default=512 * MIB, ge=32 * MIB, le=1 << 40)
    cpu_nanos: int = Field(default=10**9, ge=10**7, le=10**12)
    """Billionths of a CPU, as Docker's ``nano_cpus``."""
    pids: int = Field(default=512, ge=128, le=65536)
    """Host tasks. gVisor's kernel panics when it hits this, so ``nproc`` must bite first."""
    nproc: int = Field(default=64, ge=4, le=4096)
    """Processes and threads inside; beyond it ``fork`` answers EAGAIN."""
    disk_bytes: int = Field(default=128 * MIB, ge=MIB, le=1 << 40)
    """Size of /workspace, a tmpfs: it counts as memory too."""
    tmp_bytes: int = Field(default=64 * MIB, ge=MIB, le=1 << 40)
    output_bytes: int = Field(default=64 * MIB, ge=1024, le=1 << 34)
    """stdout and stderr together; beyond it the run ends ``output_limit``."""
    artifact_bytes: int = Field(default=64 * MIB, ge=0, le=1 << 34)
    """All artifacts of the run together."""
    wall_seconds: int = Field(default=3600, ge=1, le=30 * 86400)
    nofile: int = Field(default=1024, ge=64, le=1 << 20)


class InputFile(Value):
    """A file the agent finds read-only under ``AWGP_INPUT_DIR``; its bytes come by digest."""

    path: FilePath
    sha256: Sha256
    size: int = Field(ge=0)


class Artifact(Value):
    """A regular file the agent left under ``AWGP_OUTPUT_DIR``."""

    path: ArtifactPath
    sha256: Sha256
    size: int = Field(ge=0)


class LlmGrant(Value):
    """What the run may spend on models; held with the rest before it starts.

    Attributes:
        budget_nano_usd: Integer nano-dollars for all calls together.
        models: Patterns (``*`` for any part of a name) of which the model must fit one; empty: what the policy allows.
        rpm: Calls a minute.
        tpm: Tokens a minute, counted as they are held and settled.
    """

    budget_nano_usd: int = Field(ge=0, le=9 * 10**18)
    models: tuple[str, ...] = ()
    rpm: int = Field(default=600, ge=1, le=10**6)
    tpm: int = Field(default=10**6, ge=1, le=10**12)


class RunSpec(Value):
    """Exactly what is to run.

    Attributes:
        image: Reference known to the host's Docker engine.
        image_digest: Image id or repository digest (``sha256:…``) the image must have.
        command: Replaces the image's CMD; None keeps it.
        entrypoint: Replaces the image's ENTRYPOINT (and drops its CMD); None keeps it.
        llm: What it may spend on models; None: it may call none.
    """

    run_id: UUID
    work_item_id: UUID
    tenant_id: UUID
    assistant_id: UUID
    image: str = Field(min_length=1, max_length=512)
    image_digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    env: dict[str, str] = Field(default_factory=dict)
    inputs: tuple[InputFile, ...] = ()
    limits: Limits = Limits()
    llm: LlmGrant | None = None


class Continuation(Value):
    """What an attempt goes on from after its run was suspended; a part of no spec, named by the warrant's digest of it.

    Attributes:
        state: What the agent saved; it finds it under ``AWGP_STATE``.
        decisions: JSON list of all that it had asked leave for, with the answers; ``AWGP_DECISIONS``.
    """

    state: InputFile | None = None
    decisions: str = Field(default="[]", max_length=64 * 1024)


def continuation_digest(continuation: Continuation | None) -> str | None:
    """Returns the hex SHA-256 over the RFC 8785 canonical JSON of ``continuation``."""
    if continuation is None:
        return None
    return hashlib.sha256(rfc8785.dumps(continuation.model_dump(mode="json"))).hexdigest()


class RunOutcome(StrEnum):
    """How a run ended; each has one cause."""

    SUCCEEDED = "succeeded"
    FAILED_EXIT = "failed_exit"
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    OUTPUT_LIMIT = "output_limit"
    CANCELLED = "cancelled"
    HALTED = "halted"
    LEASE_LOST = "lease_lost"
    IMAGE_MISSING = "image_missing"
    START_FAILED = "start_failed"
    NOT_STARTED = "not_started"
    """Placed and recorded, but the container never started: safe to place again."""
    RUNTIME_GONE = "runtime_gone"
    SUSPENDED = "suspended"
    """Ended by order while its agent waited for people; another attempt goes on from there."""


class RunResult(Value):
    """What is known of an ended run. Status, memory and time come from Docker, never the agent."""

    outcome: RunOutcome
    exit_code: int | None = Field(default=None, ge=-(1 << 31), lt=1 << 31)
    detail: Words = Field(default="", max_length=2000)
    started_at: datetime | None = None
    ended_at: datetime | None = None
    wall_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Without the time for which it was paused."""
    paused_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    cpu_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    memory_peak_bytes: int | None = None
    output_bytes: int = 0
    artifacts: tuple[Artifact, ...] = ()
    oom_flag: bool = False
    simulated: bool = False
    """True when the null runner answered: nothing was executed."""


def spec_digest(spec: RunSpec) -> str:
    """Returns the hex SHA-256 over the RFC 8785 canonical JSON of ``spec``."""
    return hashlib.sha256(rfc8785.dumps(spec.model_dump(mode="json"))).hexdigest()
