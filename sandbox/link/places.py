"""Free places of the connected runtimes: who may still be given a run.

A place belongs to a sandbox, not to the poller's slot: a permit reserves one, ``place`` turns it
into a run of that runtime, and only the run's end (or a heartbeat without it) frees it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from sandbox.link.messages import RunRef


@dataclass(eq=False)
class Seat:
    """The places of one connection."""

    runtime_id: UUID
    tenant_id: UUID
    capacity: int
    live: set[RunRef] = field(default_factory=set[RunRef])
    pending: set[RunRef] = field(default_factory=set[RunRef])
    """Sent and not yet answered: a heartbeat that crosses them does not know them."""
    permits: int = 0
    connected: bool = True

    @property
    def free(self) -> int:
        """Places that nobody has."""
        if not self.connected:
            return 0
        return self.capacity - len(self.live | self.pending) - self.permits


class Permit:
    """One reserved place. Release it, or hand it to ``RuntimeHub.place``; both may be repeated."""

    def __init__(self, places: Places, seat: Seat) -> None:
        self._places = places
        self.seat = seat
        self._held = True
        seat.permits += 1

    @property
    def tenant_id(self) -> UUID:
        """The tenant it is for."""
        return self.seat.tenant_id

    @property
    def runtime_id(self) -> UUID:
        """The runtime it is at."""
        return self.seat.runtime_id

    @property
    def usable(self) -> bool:
        """False once it was used, released, or its runtime has gone."""
        return self._held and self.seat.connected

    def release(self) -> None:
        """Gives the place back, unless a run has it by now."""
        if self._held:
            self._held = False
            self.seat.permits -= 1
            self._places.wake(self.seat.tenant_id)

    def turn_into(self, run: RunRef) -> None:
        """Makes the place that of ``run``."""
        self._held = False
        self.seat.permits -= 1
        self.seat.pending.add(run)


class Places:
    """All seats by tenant, and those who wait for one, oldest first."""

    def __init__(self) -> None:
        self._seats: dict[UUID, list[Seat]] = {}
        self._waiting: dict[UUID, deque[asyncio.Future[Permit]]] = {}

    def add(self, seat: Seat) -> None:
        """A runtime has connected."""
        self._seats.setdefault(seat.tenant_id, []).append(seat)
        self.wake(seat.tenant_id)

    def remove(self, seat: Seat) -> None:
        """Its connection ended; permits on it become unusable."""
        seat.connected = False
        seats = self._seats.get(seat.tenant_id, [])
        if seat in seats:
            seats.remove(seat)

    def heard(self, seat: Seat, live: Iterable[RunRef]) -> None:
        """A heartbeat says what the runtime has; what is on its way counts as well."""
        seat.live = set(live)
        self.wake(seat.tenant_id)

    def take(self, tenant_id: UUID) -> Permit | None:
        """Returns a permit at the emptiest runtime of the tenant, or None."""
        seats = [seat for seat in self._seats.get(tenant_id, []) if seat.free > 0]
        if not seats:
            return None
        return Permit(self, max(seats, key=lambda seat: seat.free))

    async def wait(self, tenant_id: UUID) -> Permit:
        """Waits until a place is free. Safe to cancel."""
        queue = self._waiting.setdefault(tenant_id, deque())
        if not queue and (permit := self.take(tenant_id)):
            return permit
        future: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        queue.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                future.result().release()
            elif future in queue:
                queue.remove(future)
            raise

    def wake(self, tenant_id: UUID) -> None:
        """Gives what is free to those who wait."""
        queue = self._waiting.get(tenant_id)
        while queue:
            if queue[0].done():
                queue.popleft()
                continue
            permit = self.take(tenant_id)
            if permit is None:
                return
            queue.popleft().set_result(permit)
