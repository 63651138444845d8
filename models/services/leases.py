"""Leases fence: a claim raises the attempt, a renewal keeps it, its end by the database's clock gives it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.errors import WarrantRefused
from models.domain.principal import Principal
from models.domain.run import RunStatus
from models.domain.work_item import WorkItemStatus
from models.repositories import reservations as reservation_rows
from models.repositories import runs as rows
from models.repositories import runtimes as runtime_rows
from models.repositories import tenants as tenant_rows
from models.repositories import warrants as warrant_rows
from models.services import audit, halts, lifecycle
from models.services.continuations import continuation_of
from models.services.runs import give_up, is_held_by
from models.services.warrant_keys import WarrantVerifier
from models.tables.execution import RunRow, RuntimeRow, WarrantRow
from models.tables.work import WorkItemRow
from sandbox.link.messages import RunRef
from sandbox.spec import Continuation, RunOutcome, RunResult, RunSpec, continuation_digest, spec_digest


class ClaimState(StrEnum):
    """What came of a claim."""

    CLAIMED = "claimed"
    STALE = "stale"
    """The warrant does not hold (any more), or somebody has the run: read again."""
    ENDED = "ended"
    """The run or its item is final."""


@dataclass(frozen=True)
class Claim:
    """The lease of one attempt, with what the runtime must be given."""

    state: ClaimState
    words: str = ""
    token: str = ""
    spec: RunSpec | None = None
    continuation: Continuation | None = None


class LostState(StrEnum):
    """What was found when a run was said to be gone."""

    ALIVE = "alive"
    """Its lease, or the grace after it, is not over: follow it on."""
    REQUEUED = "requeued"
    """Open for a new attempt: item `queued`, mint again."""
    ENDED = "ended"
    """The run has ended (`runtime_gone`, or as its own runtime has said meanwhile)."""


_NOT_THE_WARRANTS_FAULT = frozenset({"runtime", "attempt"})


async def claim(
    session: AsyncSession,
    principal: Principal,
    run_id: UUID,
    attempt: int,
    runtime_id: UUID,
    broker_id: str,
    verifier: WarrantVerifier,
) -> Claim:
    """Take the run for one runtime under its live warrant, checked again against the rows.

    INVARIANT: of any number of claims of one attempt one succeeds: the run's row is locked, and the warrant used up.
    """
    seen = await rows.get(session, run_id)
    if seen is None or seen.tenant_id != principal.tenant_id:
        return Claim(ClaimState.ENDED, "there is no such run")
    item = await lifecycle.lock_work_item(session, seen.work_item_id)
    run = await rows.lock(session, run_id)
    assert run is not None, "runs are never deleted"
    if run.status == RunStatus.ENDED or WorkItemStatus(item.status).is_final:
        return Claim(ClaimState.ENDED, f"the run is {run.status}, its item {item.status}")
    if run.status != RunStatus.QUEUED:
        return Claim(ClaimState.STALE, f"the run is {run.status} in attempt {run.attempt}")
    runtime = await runtime_rows.get(session, item.tenant_id, runtime_id)
    warrant = await warrant_rows.lock_live(session, run.tenant_id, run.id)
    try:
        spec = await _check(session, item, run, attempt, runtime, warrant, verifier)
    except WarrantRefused as refusal:
        _record_refused(session, principal, item, run, attempt, runtime_id, refusal)
        if warrant is not None and refusal.extra.get("code") not in _NOT_THE_WARRANTS_FAULT:
            # It would be refused again and again until its time is over: the next one is minted from the rows.
            warrant.revoked_at = await tenant_rows.database_now(session)
            session.add(warrant)
        return Claim(ClaimState.STALE, refusal.detail)
    assert warrant is not None, "checked"
    assert runtime is not None, "checked"
    await _take(session, principal, item, run, warrant, runtime, broker_id)
    return Claim(ClaimState.CLAIMED, token=warrant.token, spec=spec, continuation=continuation_of(run))


async def _check(
    session: AsyncSession,
    item: WorkItemRow,
    run: RunRow,
    attempt: int,
    runtime: RuntimeRow | None,
    warrant: WarrantRow | None,
    verifier: WarrantVerifier,
) -> RunSpec:
    if runtime is None or not runtime.enabled:
        raise WarrantRefused("the runtime is not one of this tenant", code="runtime")
    if warrant is None:
        raise WarrantRefused("there is no live warrant", code="none")
    claims = verifier.verify(warrant.token)
    spec = RunSpec.model_validate(item.spec)
    expected = await _expected(session, item, run, attempt, warrant, spec)
    wrong = [name for name, value in expected.items() if claims.get(name) != value]
    now = await tenant_rows.database_now(session)
    for name, holds in (
        ("claims", claims == warrant.claims),
        ("digest", spec_digest(spec) == item.spec_digest),
        ("claim_before", warrant.claim_before > now),
        ("status", item.status == WorkItemStatus.QUEUED),
        ("cancel", item.cancel_requested_at is None),
        ("halt", await halts.active_halt(session, item.tenant_id, item.assistant_id) is None),
    ):
        if not holds:
            wrong.append(name)
    if wrong:
        raise WarrantRefused("the warrant does not hold: " + ", ".join(wrong), code=wrong[0])
    return spec


async def _expected(
    session: AsyncSession, item: WorkItemRow, run: RunRow, attempt: int, warrant: WarrantRow, spec: RunSpec
) -> dict[str, Any]:
    """What the signed claims must say, from the rows as they are now."""
    reservation = await reservation_rows.lock_live(session, item.tenant_id, item.id)
    epochs = await halts.epochs(session, item.tenant_id, item.assistant_id)
    firm = reservation is not None and reservation.phase == "claimed"
    return {
        "iss": "awgp",
        "aud": "run",
        "jti": str(warrant.id),
        "tenant": str(item.tenant_id),
        "assistant": str(item.assistant_id),
        "work_item": str(item.id),
        "run": str(run.id),
        # The attempt that this claim makes, and the one that was asked for.
        "attempt": run.attempt + 1 if attempt == run.attempt + 1 else None,
        "spec_digest": item.spec_digest,
        "continuation": continuation_digest(continuation_of(run)),
        "image": spec.image,
        "image_digest": spec.image_digest,
        "reservation": str(reservation.id) if reservation is not None and firm else None,
        "policy_version": str(item.policy_version_id),
        "epochs": epochs.model_dump(),
        "claim_before": int(warrant.claim_before.timestamp()),
        "max_seconds": spec.limits.wall_seconds,
    }


def _record_refused(
    session: AsyncSession,
    principal: Principal,
    item: WorkItemRow,
    run: RunRow,
    attempt: int,
    runtime_id: UUID,
    refusal: WarrantRefused,
) -> None:
    audit.record(
        session,
        principal,
        kind="run.claim_refused",
        subject=f"run/{run.id}",
        summary=f"Attempt {attempt} may not start: {refusal.detail}",
        work_item_id=item.id,
        data={"attempt": attempt, "runtime_id": str(runtime_id), "code": str(refusal.extra.get("code", ""))},
    )


async def _take(
    session: AsyncSession,
    principal: Principal,
    item: WorkItemRow,
    run: RunRow,
    warrant: WarrantRow,
    runtime: RuntimeRow,
    broker_id: str,
) -> None:
    run.attempt, run.status = run.attempt + 1, RunStatus.CLAIMED.value
    run.runtime_id, run.broker_id, run.warrant_id = runtime.id, broker_id, warrant.id
    run.placed_at = run.started_at = run.kill_reason = run.waiting = None
    run.log_offset = 0
    warrant.claimed_at = await tenant_rows.database_now(session)
    item.null_runner = bool(runtime.facts.get("null_runner"))
    session.add_all([run, warrant, item])
    await session.flush()
    await rows.start_lease(session, run)
    simulated = "; that runtime executes nothing" if item.null_runner else ""
    await lifecycle.move(
        session,
        principal,
        item,
        WorkItemStatus.RUNNING,
        summary=f"Attempt {run.attempt} goes to runtime {runtime.name}{simulated}",
        data={
            "run_id": str(run.id),
            "attempt": run.attempt,
            "runtime_id": str(runtime.id),
            "broker": broker_id,
            "warrant_id": str(warrant.id),
        },
    )


async def renew(session: AsyncSession, held: Sequence[tuple[RunRef, UUID]]) -> set[RunRef]:
    """Renew, in one statement, the leases of one tenant's runs: (run, its runtime); answers which were renewed.

    A lease that is over is not renewed: its runtime's own count has ended before, and its sandbox is dead.
    """
    if not held:
        return set()
    tenant_id: UUID = session.info["tenant_id"]
    renewed = await rows.renew(session, tenant_id, [(ref.run_id, ref.attempt, runtime) for ref, runtime in held])
    return {RunRef(run_id=run_id, attempt=attempt) for run_id, attempt in renewed}


async def end_lost(session: AsyncSession, principal: Principal, run_id: UUID, attempt: int) -> LostState:
    """Give up an attempt whose lease and grace are over by the database's clock.

    INVARIANT: *gone* is said only here and by the run's own runtime.
    """
    seen = await rows.get(session, run_id)
    if seen is None:
        return LostState.ENDED
    item = await lifecycle.lock_work_item(session, seen.work_item_id)
    run = await rows.lock(session, run_id)
    assert run is not None, "runs are never deleted"
    if run.status == RunStatus.ENDED:
        return LostState.ENDED
    if run.status == RunStatus.QUEUED:
        return LostState.REQUEUED
    if run.attempt != attempt or not await rows.lease_is_over(session, run):
        return LostState.ALIVE
    detail = "nothing was heard of its runtime until the lease and its grace were over"
    result = RunResult(outcome=RunOutcome.RUNTIME_GONE, detail=detail, started_at=run.started_at)
    opened = await give_up(session, principal, item, run, result)
    return LostState.REQUEUED if opened else LostState.ENDED


async def give_back(
    session: AsyncSession, principal: Principal, run_id: UUID, attempt: int, runtime_id: UUID, why: str
) -> bool:
    """The runtime says that it never took this attempt: open the run for anyone; False when it is not its."""
    seen = await rows.get(session, run_id)
    if seen is None:
        return False
    item = await lifecycle.lock_work_item(session, seen.work_item_id)
    run = await rows.lock(session, run_id)
    if run is None or not is_held_by(run, runtime_id, attempt):
        return False
    await give_up(session, principal, item, run, RunResult(outcome=RunOutcome.NOT_STARTED, detail=why[:500]))
    return True
