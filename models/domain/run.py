"""States of a run and what became of an attempt."""

from __future__ import annotations

from enum import StrEnum


class RunStatus(StrEnum):
    """Where a run is: claimed when a runtime holds its lease, running once the container started."""

    QUEUED = "queued"
    CLAIMED = "claimed"
    RUNNING = "running"
    ENDED = "ended"


LEASE_SECONDS = 120
"""How long a claim holds without a renewal; the runtime counts it down on its own monotonic clock."""
LEASE_GRACE_SECONDS = 30
"""How long after the lease's end, by the database's clock, a run is said to be gone."""
RENEW_SECONDS = 20
HEARTBEAT_SECONDS = 10
CLAIM_BEFORE_SECONDS = 600
"""How long a warrant may wait for its claim; a stale one is minted anew, recomputed."""
