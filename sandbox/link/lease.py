"""Leases as the runtime counts them: down, on its own clock, from the moment it asked.

INVARIANT: this count ends before the database's does. The database starts counting when it renews, which
is after the runtime asked; so when somebody else may take the run, its sandbox is dead here. The guest
counts what is left too (frame L), so that this holds while the runtime's process is dead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from sandbox.link.messages import RunRef

Clock = Callable[[], float]

_KEPT_HEARTBEATS = 64


def boot_clock() -> float:
    """Seconds since boot; goes on while the machine sleeps, as the database's clock does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Names this boot: a deadline on the boot clock means nothing after the next one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Leases:
    """The deadline of each run on the clock that is given."""

    def __init__(self, clock: Clock = boot_clock) -> None:
        self._clock = clock
        self._deadlines: dict[RunRef, float] = {}
        self._sent: dict[int, float] = {}

    def grant(self, run: RunRef, seconds: float, heartbeat_id: int | None = None) -> float:
        """A run was placed; returns its deadline, counted from the heartbeat's sending (None: from now).

        A heartbeat that is not known any more was too long ago.
        """
        now = self._clock()
        since = now if heartbeat_id is None else self._sent.get(heartbeat_id, now - seconds)
        self._deadlines[run] = since + seconds
        return self._deadlines[run]

    def restore(self, run: RunRef, deadline: float) -> None:
        """A deadline that an earlier process wrote down."""
        self._deadlines[run] = deadline

    def heartbeat_sent(self, heartbeat_id: int) -> None:
        """Call before the sending: the count starts here."""
        self._sent[heartbeat_id] = self._clock()
        while len(self._sent) > _KEPT_HEARTBEATS:
            del self._sent[min(self._sent)]

    def renewed(self, heartbeat_id: int, runs: Iterable[RunRef], seconds: float) -> dict[RunRef, float]:
        """The broker renewed these on that heartbeat; returns their deadlines.

        A lease that ran out stays over, and an older heartbeat never shortens a newer one's count.
        """
        asked = self._sent.get(heartbeat_id)
        if asked is None:
            return {}
        now = self._clock()
        moved: dict[RunRef, float] = {}
        for run in runs:
            current = self._deadlines.get(run)
            if current is not None and current > now:
                self._deadlines[run] = moved[run] = max(current, asked + seconds)
        return moved

    def deadline(self, run: RunRef) -> float | None:
        """Returns a run's deadline."""
        return self._deadlines.get(run)

    def remaining(self, run: RunRef) -> float:
        """Returns the seconds left of a run's lease, at least 0; 0 for a run that is not known."""
        deadline = self._deadlines.get(run)
        return 0.0 if deadline is None else max(0.0, deadline - self._clock())

    def expired(self) -> list[RunRef]:
        """Returns the runs whose lease is over."""
        now = self._clock()
        return [run for run, deadline in self._deadlines.items() if deadline <= now]

    def drop(self, run: RunRef) -> None:
        """The run has ended."""
        self._deadlines.pop(run, None)
