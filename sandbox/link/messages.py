"""The frames of the link, one JSON object a WebSocket text frame, told apart by ``type``.

Names follow who speaks: the broker sends ``BrokerMessage``, the runtime ``RuntimeMessage``.
A frame that does not parse ends the connection; it is never half understood.
"""

from __future__ import annotations

import base64
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, TypeAdapter

from sandbox.spec import Continuation, RunResult, RunSpec, Value, Words

LINK_PATH = "/v1/runtime/link"
ENROL_PATH = "/v1/runtime/enrol"
BLOB_PATH = "/v1/runtime/blobs/{sha256}"
LINK_AUDIENCE = b"awgp-broker"
"""Signed after the nonce, so that a signature made for another purpose does not fit here."""

MAX_FRAME_BYTES = 4 * 1024 * 1024


class KillReason(StrEnum):
    """Why the control plane ends a run; decides its outcome."""

    CANCELLED = "cancelled"
    HALTED = "halted"
    LEASE_LOST = "lease_lost"


class OutputStream(StrEnum):
    """Which of the agent's pipes a record came from."""

    STDOUT = "stdout"
    STDERR = "stderr"


class RunRef(Value):
    """One attempt of one run; a key of tables."""

    run_id: UUID
    attempt: int = Field(ge=1)

    def __hash__(self) -> int:
        """Said aloud, since type checkers do not see that a ``Value`` is frozen."""
        return hash((self.run_id, self.attempt))


class RuntimeFacts(Value):
    """What the runtime's probe found; shown to operators, required by policy."""

    runtime_version: str
    gvisor_version: str | None = None
    platform: str | None = None
    docker_version: str | None = None
    kernel: str | None = None
    architecture: str = ""
    cpus: int = 0
    checks: tuple[str, ...] = ()
    """Names of the probe's checks that held."""
    null_runner: bool = False


class LogRecord(Value):
    """Bytes of the combined output stream, beginning at ``offset``."""

    offset: int = Field(ge=0)
    stream: OutputStream
    at: datetime
    data_b64: str

    @property
    def data(self) -> bytes:
        """The bytes themselves."""
        return base64.b64decode(self.data_b64, validate=True)

    @property
    def end(self) -> int:
        """Offset just past this record."""
        return self.offset + len(self.data)


# broker → runtime


class Challenge(Value):
    """Opens each connection."""

    type: Literal["challenge"] = "challenge"
    nonce: str
    """Base64, 32 random bytes; good for one connection."""


class Welcome(Value):
    """The runtime is who it says."""

    type: Literal["welcome"] = "welcome"
    session_token: str
    lease_seconds: float
    heartbeat_seconds: float
    warrant_jwks: str
    """A JWK set as JSON text."""
    gateway_url: str = ""
    api_url: str = ""
    """Where agents' requests go, unless the runtime's own settings say; empty: nowhere."""


class Refused(Value):
    """It is not; the connection ends."""

    type: Literal["refused"] = "refused"
    reason: str


class Place(Value):
    """A claimed run, with the warrant to run it.

    Its lease counts from the sending of the named heartbeat, the newest that the broker had heard: a frame that lay
    about while the runtime's process stood still starts nothing.
    """

    type: Literal["place"] = "place"
    run_id: UUID
    attempt: int = Field(ge=1)
    warrant: str
    spec: RunSpec
    lease_seconds: float
    heartbeat_id: int | None = None
    continuation: Continuation | None = None


class Renewed(Value):
    """These runs' leases now count from the sending of the named heartbeat."""

    type: Literal["renewed"] = "renewed"
    heartbeat_id: int
    runs: tuple[RunRef, ...]


class Kill(Value):
    """End this run."""

    type: Literal["kill"] = "kill"
    run_id: UUID
    attempt: int = Field(ge=1)
    reason: KillReason


class Pause(Value):
    """Let this run's sandbox stand still: its agent only waits for people. Its lease goes on."""

    type: Literal["pause"] = "pause"
    run_id: UUID
    attempt: int = Field(ge=1)


class Resume(Value):
    """Let it go on."""

    type: Literal["resume"] = "resume"
    run_id: UUID
    attempt: int = Field(ge=1)


class Suspend(Value):
    """End this attempt, with outcome ``suspended``: another one will go on from there."""

    type: Literal["suspend"] = "suspend"
    run_id: UUID
    attempt: int = Field(ge=1)


class LogAck(Value):
    """Everything before ``offset`` is durable with the broker."""

    type: Literal["log_ack"] = "log_ack"
    run_id: UUID
    attempt: int = Field(ge=1)
    offset: int = Field(ge=0)


class EndedAck(Value):
    """The result is committed; the runtime may forget the run."""

    type: Literal["ended_ack"] = "ended_ack"
    run_id: UUID
    attempt: int = Field(ge=1)


# runtime → broker


class Hello(Value):
    """Who the runtime is, and what it still runs."""

    type: Literal["hello"] = "hello"
    runtime_id: UUID
    tenant_id: UUID
    signature: str
    """Base64 Ed25519 signature over nonce bytes + ``LINK_AUDIENCE``."""
    capacity: int = Field(ge=1)
    facts: RuntimeFacts
    live: tuple[RunRef, ...] = ()


class Heartbeat(Value):
    """The runtime lives; asks for its leases to be renewed."""

    type: Literal["heartbeat"] = "heartbeat"
    heartbeat_id: int
    free: int = Field(ge=0)
    live: tuple[RunRef, ...] = ()
    paused: tuple[RunRef, ...] = ()
    """Those of them that stand still."""


class Placed(Value):
    """The runtime has recorded the placement durably (accepted), or refuses it."""

    type: Literal["placed"] = "placed"
    run_id: UUID
    attempt: int = Field(ge=1)
    accepted: bool
    error: Words | None = None


class Started(Value):
    """The container runs."""

    type: Literal["started"] = "started"
    run_id: UUID
    attempt: int = Field(ge=1)
    container_id: Words


class Log(Value):
    """Output from ``offset`` on."""

    type: Literal["log"] = "log"
    run_id: UUID
    attempt: int = Field(ge=1)
    offset: int = Field(ge=0)
    records: tuple[LogRecord, ...]


class Used(Value):
    """What the sandbox has used so far, as the engine counts it; never acknowledged, the newest counts."""

    type: Literal["used"] = "used"
    run_id: UUID
    attempt: int = Field(ge=1)
    at: datetime
    cpu_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    memory_bytes: int | None = Field(default=None, ge=0)
    memory_peak_bytes: int | None = Field(default=None, ge=0)


class Ended(Value):
    """The result; said again until acknowledged."""

    type: Literal["ended"] = "ended"
    run_id: UUID
    attempt: int = Field(ge=1)
    result: RunResult


BrokerMessage = Annotated[
    Challenge | Welcome | Refused | Place | Renewed | Kill | Pause | Resume | Suspend | LogAck | EndedAck,
    Field(discriminator="type"),
]
RuntimeMessage = Annotated[Hello | Heartbeat | Placed | Started | Log | Used | Ended, Field(discriminator="type")]

_BROKER: TypeAdapter[BrokerMessage] = TypeAdapter(BrokerMessage)
_RUNTIME: TypeAdapter[RuntimeMessage] = TypeAdapter(RuntimeMessage)


class EnrolRequest(Value):
    """Body of the enrolment call."""

    token: str = Field(min_length=16, max_length=512)
    name: Words = Field(min_length=1, max_length=100)
    public_key: str
    """Base64 of the raw 32 byte Ed25519 public key."""


class EnrolResponse(Value):
    """Who the runtime now is."""

    runtime_id: UUID
    tenant_id: UUID


def parse_from_broker(text: str | bytes) -> BrokerMessage:
    """Reads one frame of the broker; raises ``pydantic.ValidationError``."""
    return _BROKER.validate_json(text)


def parse_from_runtime(text: str | bytes) -> RuntimeMessage:
    """Reads one frame of a runtime; raises ``pydantic.ValidationError``."""
    return _RUNTIME.validate_json(text)


def encode(message: Value) -> str:
    """Returns the frame's JSON text."""
    return message.model_dump_json()
