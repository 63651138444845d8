"""Opening a reservation for model calls, and closing it: PostgreSQL's half of the second tier of money.

INVARIANT: what is opened is part of a live, claimed reservation, and what was opened in one life of Redis is never
opened in another before it has been reconciled here: its ledger is whole, or the rest of its grant is charged.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.errors import DependencyAway, Forbidden
from models.domain.llm import ChargeKind
from models.domain.money import format_usd
from models.domain.principal import Principal
from models.domain.run import RunStatus
from models.repositories import llm_ledger as rows
from models.repositories import reservations as reservation_rows
from models.repositories import runs as run_rows
from models.repositories import tenants as tenant_rows
from models.repositories import work_items as item_rows
from models.services import audit, lifecycle, policies
from models.services.ids import new_id
from models.services.run_credentials import RunClaims
from models.tables.execution import RunRow
from models.tables.llm import LlmChargeRow, LlmOpeningRow
from models.tables.work import WorkItemRow
from sandbox.spec import LlmGrant, RunSpec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ModelCallsOpen(DependencyAway):
    """The item may still spend on models: close that first, then settle. Asking again helps."""

    type, title, status = "model-calls-open", "Model calls are not closed yet", 503


@dataclass(frozen=True, slots=True)
class Opening:
    """What of a reservation is there for model calls, and on which terms.

    Attributes:
        identity: The life of Redis in which it is divided.
        token: Microseconds of its moment: rises with each opening of the same reservation.
        charged: What the ledger has of it.
        models: The policy's patterns and the assistant's; a model must fit one of each.
    """

    tenant_id: UUID
    reservation_id: UUID
    identity: str
    token: int
    limit: int
    charged: int
    models: tuple[tuple[str, ...], ...]
    rpm: int
    tpm: int


async def open_reservation(session: AsyncSession, principal: Principal, claims: RunClaims, identity: str) -> Opening:
    """Note that the run's reservation is divided in this life of Redis; repeatable.

    Raises:
        Forbidden: The run may call no model, or not any more; `code` says why.
        DependencyAway: It was opened in another life of Redis, and is not reconciled.
    """
    item = await lifecycle.lock_work_item(session, claims.work_item)
    run = await run_rows.get(session, claims.run)
    spec = await _live_spec(session, item, run, claims)
    grant = spec.llm
    if grant is None or grant.budget_nano_usd == 0:
        raise Forbidden("this work item has no grant for model calls", code="no_grant")
    row = await rows.lock_opening(session, item.tenant_id, claims.reservation)
    if row is None:
        row = LlmOpeningRow(
            tenant_id=item.tenant_id,
            reservation_id=claims.reservation,
            work_item_id=item.id,
            run_id=claims.run,
            assistant_id=item.assistant_id,
            grant_nano=grant.budget_nano_usd,
            redis_run_id=identity,
        )
        await _open(session, principal, row, identity)
    elif row.closed_at is not None:
        await _open(session, principal, row, identity)
    elif row.redis_run_id != identity:
        raise DependencyAway(
            "Redis has lost its memory since this work item began to call models: it may call none until it has ended"
            " and is reconciled",
            dependency="redis",
            code="redis_another_life",
        )
    return Opening(
        tenant_id=item.tenant_id,
        reservation_id=row.reservation_id,
        identity=identity,
        token=token_of(row.opened_at),
        limit=row.grant_nano,
        charged=await rows.charged(session, item.tenant_id, row.reservation_id),
        models=await _patterns(session, item, grant),
        rpm=grant.rpm,
        tpm=grant.tpm,
    )


async def model_patterns(session: AsyncSession, work_item_id: UUID) -> tuple[tuple[str, ...], ...]:
    """The policy's patterns and the assistant's, for an item; a model must fit one of each.

    Raises:
        Forbidden: The item may call no model.
    """
    item = await item_rows.get(session, work_item_id)
    spec = RunSpec.model_validate(item.spec) if item is not None else None
    if item is None or spec is None or spec.llm is None:
        raise Forbidden("this work item has no grant for model calls", code="no_grant")
    return await _patterns(session, item, spec.llm)


async def _patterns(session: AsyncSession, item: WorkItemRow, grant: LlmGrant) -> tuple[tuple[str, ...], ...]:
    policy = await policies.pinned(session, item.tenant_id, item.policy_version_id)
    return policy.llm.models, grant.models


async def _live_spec(session: AsyncSession, item: WorkItemRow, run: RunRow | None, claims: RunClaims) -> RunSpec:
    reservation = await reservation_rows.lock_live(session, item.tenant_id, item.id)
    live = run is not None and run.status in (RunStatus.CLAIMED, RunStatus.RUNNING)
    if run is None or not live or (run.attempt, run.warrant_id) != (claims.attempt, claims.jti):
        raise Forbidden("the run has ended", code="ended")
    if reservation is None or reservation.id != claims.reservation or reservation.phase != "claimed":
        raise Forbidden("the run's reservation is not live", code="reservation")
    return RunSpec.model_validate(item.spec)


async def _open(session: AsyncSession, principal: Principal, row: LlmOpeningRow, identity: str) -> None:
    now = await tenant_rows.database_now(session)
    again = row.closed_at is not None
    row.opened_at = max(now, row.opened_at + timedelta(microseconds=1)) if again else now
    row.closed_at, row.redis_run_id = None, identity
    session.add(row)
    await session.flush()
    audit.record(
        session,
        principal,
        kind="llm.opened",
        subject=f"reservation/{row.reservation_id}",
        summary=f"{format_usd(row.grant_nano)} may be spent on models" + (", from where it was left" if again else ""),
        work_item_id=row.work_item_id,
        data={"grant_nano": str(row.grant_nano), "run_id": str(row.run_id), "redis": identity},
    )


def token_of(opened_at: datetime) -> int:
    """The opening's moment in whole microseconds."""
    return (opened_at - _EPOCH) // timedelta(microseconds=1)


async def close_reservation(
    session: AsyncSession,
    principal: Principal,
    work_item_id: UUID,
    reservation_id: UUID,
    token: int,
    charged: int | None,
    why: str,
) -> None:
    """Close an opening whose ledger is here; what is missing in it is charged as unaccounted. Repeatable.

    Args:
        session: A transaction of its own.
        principal: Who closes.
        work_item_id: Whose it is.
        reservation_id: Which.
        token: Of the opening that was closed in Redis: a later one is left alone.
        charged: What Redis says that was charged; None: it cannot say, so all of the grant may have been.
        why: For people, where something is unaccounted for.
    """
    item = await lifecycle.lock_work_item(session, work_item_id)
    row = await rows.lock_opening(session, item.tenant_id, reservation_id)
    if row is None or row.closed_at is not None or token_of(row.opened_at) != token:
        return
    known = await rows.charged(session, item.tenant_id, reservation_id)
    missing = max(0, (row.grant_nano if charged is None else min(charged, row.grant_nano)) - known)
    row.closed_at = await tenant_rows.database_now(session)
    session.add(row)
    if missing:
        session.add(_unaccounted(row, missing, why))
    await session.flush()
    spent = format_usd(known + missing)
    summary = f"{spent} of {format_usd(row.grant_nano)} spent on models"
    data = {"grant_nano": str(row.grant_nano), "charged_nano": str(known + missing)}
    if missing:
        summary += f"; of {format_usd(missing)} nobody knows what became: {why}"
        data |= {"unaccounted_nano": str(missing), "why": why}
    audit.record(
        session,
        principal,
        kind="llm.unaccounted" if missing else "llm.closed",
        subject=f"reservation/{reservation_id}",
        summary=summary,
        work_item_id=item.id,
        data=data,
    )


def _unaccounted(row: LlmOpeningRow, missing: int, why: str) -> LlmChargeRow:
    assert row.closed_at is not None, "set by the caller"
    return LlmChargeRow(
        tenant_id=row.tenant_id,
        call_id=new_id(),
        reservation_id=row.reservation_id,
        work_item_id=row.work_item_id,
        run_id=row.run_id,
        assistant_id=row.assistant_id,
        model="unknown",
        held_nano=missing,
        amount_nano=missing,
        kind=ChargeKind.UNACCOUNTED.value,
        detail=why,
        started_at=row.opened_at,
        ended_at=row.closed_at,
    )


async def spent_on_models(session: AsyncSession, tenant_id: UUID, reservation_id: UUID) -> int:
    """What a reservation's model calls came to; 0 where none was ever opened.

    Raises:
        ModelCallsOpen: Nobody can say yet.
    """
    row = await rows.opening(session, tenant_id, reservation_id)
    if row is None:
        return 0
    if row.closed_at is None:
        raise ModelCallsOpen("the work item's model calls are not closed yet")
    return await rows.charged(session, tenant_id, reservation_id)
