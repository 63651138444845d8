"""The broker's side of the link: connections, free places, placing, killing, renewing.

Holds no truth. What the runtimes report goes to the injected ``RuntimeBackend``, and what that
says is durable is acknowledged; a hub that dies loses nothing that was acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

import structlog

from sandbox.link.backend import ConnectedRuntime, RuntimeBackend, RuntimeUnavailableError
from sandbox.link.connection import RuntimeConnection
from sandbox.link.messages import Kill, KillReason, LogAck, Pause, Place, Placed, Renewed, Resume, RunRef, Suspend
from sandbox.link.places import Permit, Places
from sandbox.spec import Continuation, RunSpec

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LinkTimes:
    """How long a lease lasts and how often a runtime calls, in seconds."""

    lease_seconds: float = 120.0
    heartbeat_seconds: float = 10.0
    hello_seconds: float = 10.0


@dataclass(frozen=True)
class Heard:
    """The newest heartbeat of one runtime since the last call of ``take_heard``."""

    runtime: ConnectedRuntime
    heartbeat_id: int
    runs: tuple[RunRef, ...]


class RuntimeHub:
    """All runtimes connected to this broker.

    Args:
        backend: The control plane.
        warrant_jwks: Public keys of warrants as JSON text, told to each runtime.
        times: Lease and heartbeat.
        gateway_url: Model gateway, for the runtimes.
        api_url: Control plane's API, for the runtimes.
    """

    def __init__(
        self,
        backend: RuntimeBackend,
        warrant_jwks: str,
        times: LinkTimes | None = None,
        *,
        gateway_url: str = "",
        api_url: str = "",
    ) -> None:
        self.backend = backend
        self.warrant_jwks = warrant_jwks
        self.times = times or LinkTimes()
        self.gateway_url = gateway_url
        self.api_url = api_url
        self.places = Places()
        self._connections: dict[UUID, RuntimeConnection] = {}

    async def free_place(self, tenant_id: UUID) -> Permit:
        """Waits until a connected runtime of the tenant has a free place, and reserves it."""
        return await self.places.wait(tenant_id)

    def try_free_place(self, tenant_id: UUID) -> Permit | None:
        """Reserves a free place if there is one now."""
        return self.places.take(tenant_id)

    async def place(
        self,
        permit: Permit,
        *,
        run_id: UUID,
        attempt: int,
        warrant: str,
        spec: RunSpec,
        continuation: Continuation | None = None,
        wait_seconds: float = 20.0,
    ) -> Placed:
        """Hands a claimed run to the permit's runtime and waits until it has recorded it.

        Returns:
            Its answer; ``accepted`` may be False with its reason.

        Raises:
            RuntimeUnavailableError: It has gone or kept silent. It may still have recorded the run:
                only the run's lease says when that is over.
        """
        connection = self._connections.get(permit.runtime_id)
        if not permit.usable or connection is None or connection.seat is not permit.seat:
            permit.release()
            raise RuntimeUnavailableError("the runtime of this place has gone")
        run = RunRef(run_id=run_id, attempt=attempt)
        permit.turn_into(run)
        message = Place(
            run_id=run_id,
            attempt=attempt,
            warrant=warrant,
            spec=spec,
            lease_seconds=self.times.lease_seconds,
            heartbeat_id=connection.newest_heartbeat,
            continuation=continuation,
        )
        try:
            async with asyncio.timeout(wait_seconds):
                return await connection.ask_place(run, message)
        except TimeoutError:
            raise RuntimeUnavailableError("the runtime did not record the run in time") from None
        finally:
            permit.seat.pending.discard(run)
            self.places.wake(permit.tenant_id)

    async def kill(self, run_id: UUID, attempt: int, reason: KillReason) -> bool:
        """Tells the runtime that has the run to end it; False when it is not connected here."""
        return await self._tell(Kill(run_id=run_id, attempt=attempt, reason=reason))

    async def pause(self, run: RunRef) -> bool:
        """Tells the runtime to let the run's sandbox stand still; repeatable; False when it is not connected here."""
        return await self._tell(Pause(run_id=run.run_id, attempt=run.attempt))

    async def resume(self, run: RunRef) -> bool:
        """Tells it to let the sandbox go on; likewise."""
        return await self._tell(Resume(run_id=run.run_id, attempt=run.attempt))

    async def suspend(self, run: RunRef) -> bool:
        """Tells it to end the attempt, for another one to go on from there; likewise."""
        return await self._tell(Suspend(run_id=run.run_id, attempt=run.attempt))

    async def _tell(self, message: Kill | Pause | Resume | Suspend) -> bool:
        run = RunRef(run_id=message.run_id, attempt=message.attempt)
        for connection in list(self._connections.values()):
            if run in connection.seat.live or run in connection.seat.pending:
                return await connection.send(message)
        return False

    def paused(self, tenant_id: UUID) -> set[RunRef]:
        """Returns which of the tenant's runs stand still, as its runtimes here last said."""
        return {
            run
            for connection in self._connections.values()
            if connection.runtime.tenant_id == tenant_id
            for run in connection.paused
        }

    def take_heard(self) -> list[Heard]:
        """Returns, once, every runtime heard since the last call, with the runs it has.

        The broker renews those leases in one statement, then calls ``send_renewed`` with what the
        statement touched. INVARIANT: never the other way round; the runtime counts from the
        heartbeat's sending, so its count always ends before the database's.
        """
        heard: list[Heard] = []
        for connection in self._connections.values():
            if connection.unheard is not None:
                beat, connection.unheard = connection.unheard, None
                heard.append(Heard(connection.runtime, beat.heartbeat_id, beat.live))
        return heard

    async def send_renewed(self, heard: Heard, renewed: Collection[RunRef]) -> None:
        """Tells one runtime which of its runs' leases were renewed."""
        connection = self._connections.get(heard.runtime.runtime_id)
        runs = tuple(run for run in heard.runs if run in renewed)
        if connection is not None and runs:
            await connection.send(Renewed(heartbeat_id=heard.heartbeat_id, runs=runs))

    async def send_log_ack(self, runtime_id: UUID, run: RunRef, offset: int) -> None:
        """Acknowledges output that became durable after it was taken in, as chunks do."""
        connection = self._connections.get(runtime_id)
        if connection is not None:
            await connection.send(LogAck(run_id=run.run_id, attempt=run.attempt, offset=offset))

    def connected(self) -> list[ConnectedRuntime]:
        """Returns who is here."""
        return [connection.runtime for connection in self._connections.values()]

    def by_session(self, token: str) -> RuntimeConnection | None:
        """Returns the connection that was given this session token."""
        for connection in self._connections.values():
            if connection.has_token(token):
                return connection
        return None

    async def attend(self, connection: RuntimeConnection) -> None:
        """Serves an authenticated connection until it ends."""
        runtime_id = connection.runtime.runtime_id
        older = self._connections.get(runtime_id)
        self._connections[runtime_id] = connection
        if older is not None:
            self.places.remove(older.seat)
            await older.close("the runtime has connected again")
        self.places.add(connection.seat)
        try:
            await connection.serve(self.places)
        finally:
            self.places.remove(connection.seat)
            if self._connections.get(runtime_id) is connection:
                del self._connections[runtime_id]
            with contextlib.suppress(Exception):
                await self.backend.on_gone(connection.runtime)
            log.info("runtime_disconnected", runtime_id=str(runtime_id))

    async def close(self) -> None:
        """Ends all connections; the runtimes and their runs live on."""
        for connection in list(self._connections.values()):
            await connection.close("the broker is going down")
