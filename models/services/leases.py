"""Leases fence: a claim raises the attempt, a renewal keeps it, its end by the database's clock gives it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.principal import Principal
from models.services.warrant_keys import WarrantVerifier
from sandbox.link.messages import RunRef
from sandbox.spec import RunSpec


class ClaimState(StrEnum):
    """What came of a claim."""

    CLAIMED = "claimed"
    STALE = "stale"
    """The warrant does not hold (any more): mint anew."""
    ENDED = "ended"
    """The run or its item is final, or somebody else has it."""


@dataclass(frozen=True)
class Claim:
    """The lease of one attempt, with what the runtime must be given."""

    state: ClaimState
    words: str = ""
    token: str = ""
    spec: RunSpec | None = None


class LostState(StrEnum):
    """What was found when a run was said to be gone."""

    ALIVE = "alive"
    """Its lease, or the grace after it, is not over: follow it on."""
    REQUEUED = "requeued"
    """Open for a new attempt: item `queued`, mint again."""
    ENDED = "ended"
    """The run has ended (`runtime_gone`, or as its own runtime has said meanwhile)."""


async def claim(
    session: AsyncSession,
    principal: Principal,
    run_id: UUID,
    attempt: int,
    runtime_id: UUID,
    broker_id: str,
    verifier: WarrantVerifier,
) -> Claim:
    """Take the run for one runtime under its live warrant, checked again against the rows."""
    raise NotImplementedError


async def renew(session: AsyncSession, held: Sequence[tuple[RunRef, UUID]]) -> set[RunRef]:
    """Renew, in one statement, the leases of one tenant's runs: (run, its runtime); answers which were renewed."""
    raise NotImplementedError


async def end_lost(session: AsyncSession, principal: Principal, run_id: UUID, attempt: int) -> LostState:
    """Give up an attempt whose lease and grace are over by the database's clock."""
    raise NotImplementedError
