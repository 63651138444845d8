"""Minting a warrant: everything that allows a run is recomputed in one transaction, then signed."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.errors import WarrantRefused
from models.domain.principal import Principal
from models.domain.run import CLAIM_BEFORE_SECONDS, RunStatus
from models.domain.work_item import WorkItemStatus
from models.repositories import assistants as assistant_rows
from models.repositories import reservations as reservation_rows
from models.repositories import tenants as tenant_rows
from models.repositories import warrants as rows
from models.repositories import work_items as item_rows
from models.rules import cost
from models.services import audit, halts, lifecycle, money, policies
from models.services.approved import missing_approval
from models.services.continuations import continuation_of
from models.services.ids import new_id
from models.services.warrant_keys import WarrantSigner
from models.tables.execution import RunRow, WarrantRow
from models.tables.money import ReservationRow
from models.tables.work import WorkItemRow
from sandbox.spec import RunSpec, continuation_digest, spec_digest

STILL_GOOD_SECONDS = 60
"""A live warrant that may be claimed for so long yet is answered again; an older one is minted anew."""


class MintState(StrEnum):
    """What came of a request for a warrant (the same words as `activities.signatures.WarrantState`)."""

    MINTED = "minted"
    HALTED = "halted"
    BUDGET = "budget"
    """The item was moved back to `awaiting_budget`: reserve again."""
    ENDED = "ended"


class MintResult(BaseModel):
    """Names the warrant without showing it."""

    model_config = ConfigDict(frozen=True)

    state: MintState
    run_id: UUID | None = None
    attempt: int = 0
    claim_before: datetime | None = None
    words: str = ""


async def mint(session: AsyncSession, principal: Principal, work_item_id: UUID, signer: WarrantSigner) -> MintResult:
    """Recompute everything and, if all of it holds, write the signed warrant; repeatable.

    Raises:
        WarrantRefused: What was approved is not what would run, or it was not approved. Asking again does not help;
            the caller records it with `record_refusal` in a transaction of its own.
        NotFound: There is no such item.
    """
    item = await lifecycle.lock_work_item(session, work_item_id)
    run = await item_rows.lock_open_run(session, item.id)
    not_open = _why_not_open(item, run)
    if run is None or not_open:
        return MintResult(state=MintState.ENDED, words=not_open or "its run has ended")
    spec = await _spec_as_approved(session, item, run)
    halt = await halts.active_halt(session, item.tenant_id, item.assistant_id)
    if halt is not None:
        # What was minted before the halt is void; revoked here, so that nobody need compare.
        await item_rows.revoke_warrants(session, item.tenant_id, item.id)
        return MintResult(state=MintState.HALTED, run_id=run.id, words=f"{halt.scope} is halted: {halt.reason}")
    if not await money.claim(session, principal, item.id):
        await lifecycle.move(
            session, principal, item, WorkItemStatus.AWAITING_BUDGET, summary="The hold's window has passed"
        )
        return MintResult(state=MintState.BUDGET, run_id=run.id, words="the hold's window has passed")
    reservation = await _firm_hold(session, item, spec)
    epochs = await halts.epochs(session, item.tenant_id, item.assistant_id)
    facts = {
        "attempt": run.attempt + 1,
        "spec_digest": item.spec_digest,
        "reservation": str(reservation.id),
        "epochs": epochs.model_dump(),
        "continuation": continuation_digest(continuation_of(run)),
    }
    known = await _still_good(session, run, facts)
    if known is None:
        known = await _write(session, principal, item, run, spec, facts, signer)
    return MintResult(state=MintState.MINTED, run_id=run.id, attempt=known.attempt, claim_before=known.claim_before)


def _why_not_open(item: WorkItemRow, run: RunRow | None) -> str:
    if item.status != WorkItemStatus.QUEUED:
        return f"the work item is {item.status}"
    if item.cancel_requested_at is not None:
        return "a cancel was asked for"
    if run is not None and run.status != RunStatus.QUEUED:
        return f"its run is {run.status}"
    return ""


async def _spec_as_approved(session: AsyncSession, item: WorkItemRow, run: RunRow) -> RunSpec:
    """The stored spec, proved to be the one that was asked for and approved."""
    try:
        spec = RunSpec.model_validate(item.spec)
    except ValidationError as error:
        raise WarrantRefused("the stored spec cannot be read", code="spec") from error
    named = (spec.tenant_id, spec.work_item_id, spec.run_id, spec.assistant_id)
    if spec_digest(spec) != item.spec_digest or named != (item.tenant_id, item.id, run.id, item.assistant_id):
        raise WarrantRefused("the stored spec is not the one that was asked for", code="digest")
    missing = await missing_approval(session, item)
    if missing is not None:
        raise WarrantRefused(f"no leave to run: {missing}", code="approval")
    assistant = await assistant_rows.get(session, item.assistant_id)
    if assistant is None or not assistant.enabled:
        raise WarrantRefused("the assistant is switched off", code="assistant")
    return spec


async def _firm_hold(session: AsyncSession, item: WorkItemRow, spec: RunSpec) -> ReservationRow:
    reservation = await reservation_rows.lock_live(session, item.tenant_id, item.id)
    policy = await policies.pinned(session, item.tenant_id, item.policy_version_id)
    needed = cost.to_hold(policy.prices, spec.limits.wall_seconds, spec.llm.budget_nano_usd if spec.llm else 0)
    if reservation is None or reservation.phase != "claimed" or reservation.amount_nano < needed:
        raise WarrantRefused("the hold does not cover what the run may cost", code="reservation")
    return reservation


async def _still_good(session: AsyncSession, run: RunRow, facts: dict[str, Any]) -> WarrantRow | None:
    """The live warrant if it says what a new one would say and may be claimed a while yet; else none lives."""
    live = await rows.lock_live(session, run.tenant_id, run.id)
    if live is None:
        return None
    now = await tenant_rows.database_now(session)
    same = all(live.claims.get(name) == value for name, value in facts.items())
    if same and (live.claim_before - now).total_seconds() > STILL_GOOD_SECONDS:
        return live
    live.revoked_at = now
    session.add(live)
    await session.flush()
    return None


async def _write(
    session: AsyncSession,
    principal: Principal,
    item: WorkItemRow,
    run: RunRow,
    spec: RunSpec,
    facts: dict[str, Any],
    signer: WarrantSigner,
) -> WarrantRow:
    warrant_id = new_id()
    claim_before = await rows.end_of_claiming(session, CLAIM_BEFORE_SECONDS)
    claims: dict[str, Any] = {
        "iss": "awgp",
        "aud": "run",
        "jti": str(warrant_id),
        "tenant": str(item.tenant_id),
        "assistant": str(item.assistant_id),
        "work_item": str(item.id),
        "run": str(run.id),
        "image": spec.image,
        "image_digest": spec.image_digest,
        "policy_version": str(item.policy_version_id),
        "claim_before": int(claim_before.timestamp()),
        "max_seconds": spec.limits.wall_seconds,
        **facts,
    }
    warrant = WarrantRow(
        tenant_id=item.tenant_id,
        id=warrant_id,
        run_id=run.id,
        work_item_id=item.id,
        attempt=facts["attempt"],
        token=signer.sign(claims),
        claims=claims,
        claim_before=claim_before,
    )
    session.add(warrant)
    await session.flush()
    audit.record(
        session,
        principal,
        kind="warrant.minted",
        subject=f"warrant/{warrant_id}",
        summary=f"Leave to run attempt {warrant.attempt}, to be claimed before {claim_before:%H:%M:%S} UTC",
        work_item_id=item.id,
        data={key: claims[key] for key in ("run", "attempt", "spec_digest", "image", "reservation", "epochs")},
    )
    return warrant


async def record_refusal(
    session: AsyncSession, principal: Principal, work_item_id: UUID, refusal: WarrantRefused
) -> None:
    """Audit a refusal, in a transaction of its own."""
    audit.record(
        session,
        principal,
        kind="warrant.refused",
        subject=f"work_item/{work_item_id}",
        summary=f"No warrant: {refusal.detail}",
        work_item_id=work_item_id,
        data={"code": str(refusal.extra.get("code", ""))},
    )
