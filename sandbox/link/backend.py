"""What the hub needs from the control plane, and nothing of how it is done.

The broker implements ``RuntimeBackend`` over PostgreSQL and the blob store; the tests over a
dictionary. Every method may raise ``LinkRefusedError``; any other error ends that connection, and the
runtime comes back and says again what was not acknowledged. So **every ``on_…`` is repeatable**:
the same report can arrive twice, also through another broker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from sandbox.link.messages import (
    EnrolResponse,
    KillReason,
    LogRecord,
    Placed,
    RunRef,
    RuntimeFacts,
    Used,
)
from sandbox.spec import RunResult


class LinkRefusedError(Exception):
    """The control plane says no; ``reason`` is told to the runtime."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RuntimeUnavailableError(Exception):
    """The permit's runtime has gone, or did not answer in time: retryable, at once."""


@dataclass(frozen=True)
class ConnectedRuntime:
    """An authenticated runtime, as the backend sees it."""

    runtime_id: UUID
    tenant_id: UUID
    facts: RuntimeFacts
    capacity: int


@dataclass(frozen=True)
class KillOrder:
    """A run that the runtime still has and must not have."""

    run: RunRef
    reason: KillReason


class RuntimeBackend(Protocol):
    """The control plane's side of the runtimes' endpoint."""

    async def enrol(self, token: str, name: str, public_key: bytes) -> EnrolResponse:
        """Burns the one-time token and records the raw 32 byte key, or raises ``LinkRefusedError``."""
        ...

    async def public_key(self, runtime_id: UUID, tenant_id: UUID) -> bytes | None:
        """Returns the key enrolled for exactly this runtime of this tenant; None refuses."""
        ...

    async def on_refused(self, runtime_id: UUID, tenant_id: UUID, reason: str) -> None:
        """Somebody called in under this name and could not prove it."""
        ...

    async def on_hello(self, runtime: ConnectedRuntime, live: Sequence[RunRef]) -> Sequence[KillOrder]:
        """A runtime is there; ``live`` is what it still runs. Answers what it must end."""
        ...

    async def on_heartbeat(self, runtime: ConnectedRuntime, live: Sequence[RunRef]) -> None:
        """It was heard. Leases are renewed by ``RuntimeHub.take_heard`` / ``send_renewed``."""
        ...

    async def on_gone(self, runtime: ConnectedRuntime) -> None:
        """Its connection ended. Says nothing about its runs: only leases do."""
        ...

    async def on_placed(self, runtime: ConnectedRuntime, placed: Placed) -> None:
        """The placement is recorded there, or refused."""
        ...

    async def on_started(self, runtime: ConnectedRuntime, run: RunRef, container_id: str) -> None:
        """Its container runs."""
        ...

    async def on_log(self, runtime: ConnectedRuntime, run: RunRef, records: Sequence[LogRecord]) -> int:
        """Stores the records and returns the offset before which all is durable (acked)."""
        ...

    async def on_used(self, runtime: ConnectedRuntime, used: Used) -> None:
        """What a sandbox has used so far; only for watching, so it never raises for what it cannot write."""
        ...

    async def on_ended(self, runtime: ConnectedRuntime, run: RunRef, result: RunResult) -> None:
        """Commits the result; acknowledged when this returns. An unknown run returns too."""
        ...

    async def open_blob(self, runtime: ConnectedRuntime, sha256: str) -> AsyncIterator[bytes] | None:
        """Returns the content if a live run of this runtime names it, else None (404)."""
        ...

    async def store_blob(self, runtime: ConnectedRuntime, sha256: str, chunks: AsyncIterator[bytes]) -> None:
        """Stores the content; the hub verifies the digest as the chunks pass and raises in them."""
        ...
