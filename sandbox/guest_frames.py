"""Frames between guest and host: 1 byte type, 4 bytes big-endian length, payload of at most 1 MiB."""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

from sandbox.link.messages import OutputStream

MAX_PAYLOAD = 1024 * 1024
_HEAD = struct.Struct(">cI")
_OUTPUT_HEAD = struct.Struct(">QBQ")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_MICROSECONDS = 253_402_300_799_000_000


class GuestProtocolError(Exception):
    """What came over the socket is not the protocol; only that connection ends."""


class GuestHello(BaseModel):
    """First on each connection.

    Attributes:
        waiting: There is no agent yet. Nothing but the guest can have said so, and nothing has run.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    waiting: bool = False


class AgentExit(BaseModel):
    """The guest's word on how the agent ended. Docker's exit code decides, not this."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    exit_code: int
    signal: int | str | None = None
    output_total: int = Field(default=0, ge=0)
    detail: str = ""


class ArtifactBegin(BaseModel):
    """A file follows."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    path: str
    size: int = Field(ge=0)


class ArtifactEnd(BaseModel):
    """The file is whole."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    path: str
    sha256: str


class Skipped(BaseModel):
    """An entry under the output folder that is no artifact."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    path: str
    reason: str


class AllSent(BaseModel):
    """Nothing more follows."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    artifacts: int = 0
    skipped: list[Skipped] = Field(default_factory=list[Skipped])


@dataclass(frozen=True)
class OutputPiece:
    """Bytes of the combined output stream."""

    offset: int
    stream: OutputStream
    microseconds: int
    data: bytes


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """Returns one frame."""
    return _HEAD.pack(kind, len(payload)) + payload


def json_frame(kind: bytes, **fields: object) -> bytes:
    """Returns one frame with a JSON object."""
    return frame(kind, json.dumps(fields).encode())


async def read_frame(reader: asyncio.StreamReader) -> tuple[bytes, bytes] | None:
    """Reads one frame; None at the end of the connection, also in the middle of a frame."""
    try:
        kind, length = _HEAD.unpack(await reader.readexactly(_HEAD.size))
        if length > MAX_PAYLOAD:
            raise GuestProtocolError(f"a frame of {length} bytes")
        return kind, await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def parse_output(payload: bytes) -> OutputPiece:
    """Reads an O frame."""
    if len(payload) < _OUTPUT_HEAD.size:
        raise GuestProtocolError("a short output frame")
    offset, stream, at = _OUTPUT_HEAD.unpack_from(payload)
    if stream not in (1, 2) or at > _MAX_MICROSECONDS:
        raise GuestProtocolError("an output frame with a wrong head")
    name = OutputStream.STDOUT if stream == 1 else OutputStream.STDERR
    return OutputPiece(offset, name, at, payload[_OUTPUT_HEAD.size :])


def as_time(microseconds: int) -> datetime:
    """Returns the UTC time of Unix microseconds."""
    return _EPOCH + timedelta(microseconds=microseconds)
