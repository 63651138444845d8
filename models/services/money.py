"""Holding, claiming, settling and freeing money: reservations over every budget that applies.

INVARIANT: at every instant `spent + reserved <= limit` of each window, except after its limit was lowered. A hold is
never freed by a timer: only by the end of its work, or by reconciliation.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.budget import window_key
from models.domain.money import format_usd
from models.domain.principal import Principal
from models.domain.work_item import WorkItemStatus
from models.repositories import reservations as rows
from models.repositories import tenants as tenant_rows
from models.repositories import work_items as item_rows
from models.services import audit, lifecycle, llm_openings, policies
from models.services.budget_windows import Held, Short, claim_windows, free_windows, hold_windows
from models.services.ids import new_id
from models.services.outbox import OutboxKind, enqueue
from models.tables.money import ChargeRow, ReservationRow
from models.tables.work import WorkItemRow


class ReserveResult(BaseModel):
    """What came of a reservation.

    Attributes:
        held: The worst case is held. Otherwise the item is `awaiting_budget` (or final).
        words: Which budget is short: limit, spent, held, needed, when it resets.
        retry_at: Start of the next window of the short budget; None for a lifetime budget.
        deadline: When to give up waiting for money.
    """

    model_config = ConfigDict(frozen=True)

    held: bool
    words: str = ""
    retry_at: datetime | None = None
    deadline: datetime | None = None


async def reserve(
    session: AsyncSession, principal: Principal, work_item_id: UUID, now: datetime | None = None
) -> ReserveResult:
    """Hold the item's worst case on every budget that applies, or on none (item → `awaiting_budget`).

    Repeatable: a live reservation answers `held`. Moves the item to `awaiting_budget` itself, never out of it.
    A hold that waits for an approval counts to the policy's waiting share too; one that waits for nobody does not.

    Raises:
        NotFound: There is no such item in the session's tenant.
    """
    item = await lifecycle.lock_work_item(session, work_item_id)
    now = now or await tenant_rows.database_now(session)
    if WorkItemStatus(item.status).is_final:
        return ReserveResult(held=False, words=f"the work item is {item.status}", deadline=now)
    if await rows.lock_live(session, item.tenant_id, item.id) is not None:
        return ReserveResult(held=True)
    policy = await policies.pinned(session, item.tenant_id, item.policy_version_id)
    waiting = await _waits_for_humans(session, item)
    found = await hold_windows(session, item, now, waiting=waiting, share=policy.money.max_waiting_hold_share_ppm)
    if isinstance(found, Short):
        return await _wait_for_money(session, principal, item, found, now, policy.money.awaiting_budget_deadline)
    reservation = ReservationRow(
        tenant_id=item.tenant_id,
        id=new_id(),
        work_item_id=item.id,
        amount_nano=item.worst_case_nano,
        phase="waiting" if waiting else "claimed",
    )
    session.add(reservation)
    await session.flush()
    session.add_all(found.lines(reservation.id))
    item.reservation_id = reservation.id
    session.add(item)
    await session.flush()
    _record(session, principal, item, "reserved", f"{format_usd(item.worst_case_nano)} held: the most it can cost")
    return ReserveResult(held=True)


async def _waits_for_humans(session: AsyncSession, item: WorkItemRow) -> bool:
    assessment = await item_rows.latest_assessment(session, item.id)
    goes_on = assessment is not None and assessment.level in ("L0", "L1")
    return not (goes_on or await item_rows.has_approval(session, item))


async def _wait_for_money(
    session: AsyncSession, principal: Principal, item: WorkItemRow, short: Short, now: datetime, patience: int
) -> ReserveResult:
    since = now
    if item.status == WorkItemStatus.AWAITING_BUDGET:
        since = await rows.awaiting_since(session, item.tenant_id, item.id) or now
    else:
        await lifecycle.move(
            session, principal, item, WorkItemStatus.AWAITING_BUDGET, summary=short.words, data=short.data()
        )
    deadline = since + timedelta(seconds=patience)
    return ReserveResult(held=False, words=short.words, retry_at=short.resets_at, deadline=deadline)


async def claim(session: AsyncSession, principal: Principal, work_item_id: UUID, now: datetime | None = None) -> bool:
    """Make the hold a firm one, in the windows current at `now`.

    False: there is no hold, or a window has passed and the new one is short. The hold is then free, all of it, and
    must be reserved anew.
    """
    item = await lifecycle.lock_work_item(session, work_item_id)
    reservation = await rows.lock_live(session, item.tenant_id, item.id)
    if reservation is None:
        return False
    now = now or await tenant_rows.database_now(session)
    held = await _held(session, reservation)
    if held.is_of(lambda window: window_key(now, window)) and reservation.phase == "claimed":
        return True
    if not await claim_windows(session, item, reservation, held, now):
        await release(session, principal, work_item_id)
        return False
    reservation.phase = "claimed"
    session.add(reservation)
    await session.flush()
    _record(session, principal, item, "claimed", f"{format_usd(reservation.amount_nano)} firmly held for the run")
    return True


async def release(session: AsyncSession, principal: Principal, work_item_id: UUID) -> None:
    """Free the item's live hold, if there is one, but for what its model calls have cost already; repeatable.

    Raises:
        ModelCallsOpen: What they cost is not known yet.
    """
    item = await lifecycle.lock_work_item(session, work_item_id)
    reservation = await rows.lock_live(session, item.tenant_id, item.id)
    if reservation is None:
        return
    if await llm_openings.spent_on_models(session, item.tenant_id, reservation.id):
        await settle(session, principal, work_item_id, 0)
        return
    await _end(session, item, reservation, "released", spent=0)
    _record(session, principal, item, "released", f"{format_usd(reservation.amount_nano)} free again")


async def settle(
    session: AsyncSession,
    principal: Principal,
    work_item_id: UUID,
    actual_nano: int,
    kind: str = "sandbox_time",
    detail: dict[str, Any] | None = None,
) -> int:
    """Book what was spent (at most what is held), model calls included, and free the rest; repeatable.

    Answers what the item has cost so far, with what earlier reservations of it were charged.

    Raises:
        ModelCallsOpen: What its model calls cost is not known yet.
    """
    item = await lifecycle.lock_work_item(session, work_item_id)
    reservation = await rows.lock_live(session, item.tenant_id, item.id)
    if reservation is None:
        return item.cost_nano or 0
    spent = await llm_openings.spent_on_models(session, item.tenant_id, reservation.id)
    models = min(spent, reservation.amount_nano)
    charged = max(0, min(actual_nano, reservation.amount_nano - models))
    if models:
        session.add(_charge(item, reservation, "llm", models, {}))
    if charged or not models:
        session.add(_charge(item, reservation, kind, charged, detail or {}))
    reservation.charged_nano = charged + models
    await _end(session, item, reservation, "settled", spent=charged + models)
    item.cost_nano = (item.cost_nano or 0) + charged + models
    session.add(item)
    words = f"{format_usd(charged + models)} charged of {format_usd(reservation.amount_nano)} held"
    extra = {"charged_nano": str(charged + models), "kind": kind}
    if models:
        extra["llm_nano"] = str(models)
        words += f", {format_usd(models)} of it for models"
    if actual_nano > charged or spent > models:
        # The prices make it impossible; if it happens, the bill stops at the hold and everybody can see it.
        extra["capped_from_nano"] = str(actual_nano + spent)
        words += f" (capped: it came to {format_usd(actual_nano + spent)})"
    _record(session, principal, item, "settled", words, **extra)
    return item.cost_nano


def _charge(
    item: WorkItemRow, reservation: ReservationRow, kind: str, amount: int, detail: dict[str, Any]
) -> ChargeRow:
    return ChargeRow(
        tenant_id=item.tenant_id,
        id=new_id(),
        reservation_id=reservation.id,
        work_item_id=item.id,
        kind=kind,
        amount_nano=amount,
        detail=detail,
    )


async def _held(session: AsyncSession, reservation: ReservationRow) -> Held:
    return Held(await rows.lines(session, reservation), await rows.everything_lines(session, reservation))


async def _end(
    session: AsyncSession, item: WorkItemRow, reservation: ReservationRow, phase: str, *, spent: int
) -> None:
    held = await _held(session, reservation)
    await free_windows(session, item, reservation, held, spent=spent)
    reservation.phase = phase
    reservation.ended_at = await tenant_rows.database_now(session)
    session.add(reservation)
    await session.flush()
    everything = bool(held.everything)
    if reservation.amount_nano > spent and (everything or await rows.somebody_awaits_budget(session, item.tenant_id)):
        enqueue(session, item.tenant_id, OutboxKind.BUDGET_CHANGED, {"everything": everything})


def _record(session: AsyncSession, principal: Principal, item: WorkItemRow, what: str, words: str, **data: str) -> None:
    audit.record(
        session,
        principal,
        kind=f"budget.{what}",
        subject=f"work_item/{item.id}",
        summary=words,
        work_item_id=item.id,
        data={"amount_nano": str(item.worst_case_nano), **data},
    )
