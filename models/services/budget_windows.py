"""Taking and freeing one amount on all the budgets that apply to an item, in one fixed order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.budget import BudgetScope, BudgetUse, BudgetWindow, window_end, window_key
from models.domain.money import NanoUsd, format_usd
from models.repositories import budgets as rows
from models.rules import budget as rules
from models.tables.money import (
    BudgetRow,
    BudgetWindowRow,
    EverythingBudgetRow,
    EverythingWindowRow,
    ReservationEverythingLineRow,
    ReservationLineRow,
    ReservationRow,
)
from models.tables.work import WorkItemRow

Budget = BudgetRow | EverythingBudgetRow


@dataclass(frozen=True)
class Short:
    """The first budget, in the fixed order, that does not hold the amount."""

    scope: BudgetScope
    window: BudgetWindow
    use: BudgetUse
    needed: int
    resets_at: datetime | None
    by_share: bool
    """Whether it is the share of waiting holds that is used up, and not the budget."""

    @property
    def words(self) -> str:
        """For the requester."""
        use = self.use
        period = {"day": "a day", "month": "a month", "lifetime": "its lifetime"}[self.window]
        resets = f"; it begins anew at {self.resets_at:%Y-%m-%d %H:%M} UTC" if self.resets_at else ""
        why = f"; {format_usd(use.waiting)} wait for approvals, which is as much of it as may" if self.by_share else ""
        return (
            f"No budget: {_WHOSE[self.scope]} may spend {format_usd(use.limit)} in {period},"
            f" {format_usd(use.spent)} are spent and {format_usd(use.reserved)} held{why};"
            f" this needs {format_usd(self.needed)}{resets}"
        )

    def data(self) -> dict[str, Any]:
        """The same for programs; amounts as text."""
        use = self.use
        return {
            "scope": self.scope.value,
            "window": self.window.value,
            "limit_nano": str(use.limit),
            "spent_nano": str(use.spent),
            "reserved_nano": str(use.reserved),
            "needed_nano": str(self.needed),
            "resets_at": self.resets_at.isoformat() if self.resets_at else None,
        }


_WHOSE = {
    BudgetScope.ASSISTANT: "this assistant",
    BudgetScope.TENANT: "this company",
    BudgetScope.EVERYTHING: "the whole group",
}


@dataclass(frozen=True)
class Taken:
    """What was held, and in which windows."""

    tenant_id: UUID
    own: dict[UUID, str]
    everything: dict[str, str]

    def lines(self, reservation_id: UUID) -> Iterator[ReservationLineRow | ReservationEverythingLineRow]:
        """The rows that remember it."""
        for budget_id, key in self.own.items():
            yield ReservationLineRow(
                tenant_id=self.tenant_id, reservation_id=reservation_id, budget_id=budget_id, window_key=key
            )
        for kind, key in self.everything.items():
            yield ReservationEverythingLineRow(
                tenant_id=self.tenant_id, reservation_id=reservation_id, window_kind=kind, window_key=key
            )


@dataclass(frozen=True)
class Held:
    """The windows that a reservation counts in."""

    own: dict[UUID, ReservationLineRow]
    everything: dict[str, ReservationEverythingLineRow]

    def is_of(self, key_of: Callable[[BudgetWindow], str]) -> bool:
        """Whether none of its windows has passed. A key tells its kind by its shape."""
        lines = (*self.own.values(), *self.everything.values())
        return all(line.window_key == key_of(kind_of(line.window_key)) for line in lines)


def kind_of(key: str) -> BudgetWindow:
    """The kind of window that a key names (`2026-11-24`, `2026-11`, `lifetime`)."""
    if key == "lifetime":
        return BudgetWindow.LIFETIME
    return BudgetWindow.DAY if key.count("-") == 2 else BudgetWindow.MONTH


async def hold_windows(
    session: AsyncSession, item: WorkItemRow, now: datetime, *, waiting: bool, share: int
) -> Taken | Short:
    """Hold the item's worst case on each budget, or on none."""
    amount = item.worst_case_nano
    taken = Taken(item.tenant_id, {}, {})
    attempt = await session.begin_nested()
    for budget in await _budgets(session, item):
        key = window_key(now, BudgetWindow(budget.window_kind))
        if not await _hold(session, budget, key, amount, waiting=waiting, share=share):
            short = await _short(session, budget, now, amount, waiting=waiting, share=share)
            await attempt.rollback()
            return short
        if isinstance(budget, BudgetRow):
            taken.own[budget.id] = key
        else:
            taken.everything[budget.window_kind] = key
    await attempt.commit()
    return taken


async def claim_windows(
    session: AsyncSession, item: WorkItemRow, reservation: ReservationRow, held: Held, now: datetime
) -> bool:
    """Make a hold firm; what counts in a window that has passed is taken anew in the current one.

    False: a current window is short; nothing has changed then.
    """
    amount, waiting = reservation.amount_nano, reservation.phase == "waiting"
    attempt = await session.begin_nested()
    for budget in await _budgets(session, item):
        line = held.own.get(budget.id) if isinstance(budget, BudgetRow) else held.everything.get(budget.window_kind)
        if line is None:
            continue  # a budget that was made after the hold
        key = window_key(now, BudgetWindow(budget.window_kind))
        if line.window_key == key:
            if waiting:
                await _firm(session, budget, key, amount)
            continue
        old = line.window_key
        await _free(session, budget, old, amount, waiting=waiting, spent=0)
        if not await _hold(session, budget, key, amount, waiting=False, share=0):
            await attempt.rollback()
            return False
        line.window_key = key
        session.add(line)
    await session.flush()
    await attempt.commit()
    return True


async def free_windows(
    session: AsyncSession, item: WorkItemRow, reservation: ReservationRow, held: Held, *, spent: int
) -> None:
    """End a hold on each budget, and book what of it was spent."""
    waiting = reservation.phase == "waiting"
    for budget in await _budgets(session, item):
        line = held.own.get(budget.id) if isinstance(budget, BudgetRow) else held.everything.get(budget.window_kind)
        if line is not None:
            await _free(session, budget, line.window_key, reservation.amount_nano, waiting=waiting, spent=spent)


async def _budgets(session: AsyncSession, item: WorkItemRow) -> list[Budget]:
    return [
        *await rows.applying(session, item.tenant_id, item.assistant_id),
        *await rows.everything(session),
    ]


async def _hold(session: AsyncSession, budget: Budget, key: str, amount: int, *, waiting: bool, share: int) -> bool:
    if isinstance(budget, BudgetRow):
        return await rows.hold(session, budget.tenant_id, budget.id, key, amount, waiting=waiting, share=share)
    return await rows.hold_everything(session, budget.window_kind, key, amount, waiting=waiting, share=share)


async def _firm(session: AsyncSession, budget: Budget, key: str, amount: int) -> None:
    if isinstance(budget, BudgetRow):
        await rows.change(session, budget.tenant_id, budget.id, key, waiting=-amount)
    else:
        await rows.claim_everything(session, budget.window_kind, key, amount)


async def _free(session: AsyncSession, budget: Budget, key: str, amount: int, *, waiting: bool, spent: int) -> None:
    if isinstance(budget, BudgetRow):
        await rows.change(
            session, budget.tenant_id, budget.id, key,
            spent=spent, reserved=-amount, waiting=-amount if waiting else 0,
        )  # fmt: skip
    else:
        await rows.free_everything(session, budget.window_kind, key, amount, waiting=waiting, spent=spent)


async def _short(
    session: AsyncSession, budget: Budget, now: datetime, amount: int, *, waiting: bool, share: int
) -> Short:
    kind = BudgetWindow(budget.window_kind)
    key = window_key(now, kind)
    if isinstance(budget, BudgetRow):
        scope = BudgetScope(budget.scope)
        row: BudgetWindowRow | EverythingWindowRow | None = await rows.window(session, budget.tenant_id, budget.id, key)
    else:
        scope = BudgetScope.EVERYTHING
        row = await rows.everything_window(session, budget.window_kind, key)
    use = use_of(budget.limit_nano, row)
    fits = rules.would_fit(use, waiting=waiting, share_ppm=share)
    by_share = waiting and fits < amount <= use.left
    return Short(scope, kind, use, amount, window_end(now, kind), by_share)


def use_of(limit: int, row: BudgetWindowRow | EverythingWindowRow | None) -> BudgetUse:
    """A window's figures as the rules see them."""
    if row is None:
        return BudgetUse(limit=NanoUsd(limit))
    return BudgetUse(
        limit=NanoUsd(limit),
        spent=NanoUsd(row.spent_nano),
        reserved=NanoUsd(row.reserved_nano),
        waiting=NanoUsd(row.waiting_nano),
    )
