"""The arithmetic of budgets: hold, confirm, release, settle. The rows do the same in conditional updates.

INVARIANT: no step that takes money leaves `spent + reserved` above the limit, and holds that wait for an
approval stay within their share of it. All amounts are integer nano-USD.
"""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from models.domain.budget import BudgetUse
from models.domain.money import PPM, NanoUsd


class Shortfall(BaseModel):
    """The first budget that does not hold the amount."""

    model_config = ConfigDict(frozen=True)

    index: int
    """Which of the budgets that were asked, in their order."""
    needed: NanoUsd
    would_fit: NanoUsd
    """The most that this budget would hold now."""
    waiting_share: bool
    """Whether it is the share of waiting holds that is used up, and not the budget."""


def would_fit(use: BudgetUse, *, waiting: bool, share_ppm: int) -> NanoUsd:
    """The largest hold that the budget takes now."""
    if not waiting:
        return use.left
    share = use.limit * share_ppm // PPM
    return NanoUsd(max(0, min(use.left, share - use.waiting)))


def hold(
    uses: Sequence[BudgetUse], amount: NanoUsd, *, waiting: bool, share_ppm: int
) -> tuple[BudgetUse, ...] | Shortfall:
    """Reserve the amount on every budget, or on none.

    Args:
        uses: The budgets that apply, in the order in which their rows are locked.
        amount: The worst case.
        waiting: Whether an approval comes first; such a hold counts fully, and to the waiting share too.
        share_ppm: The policy's share of a budget for waiting holds, in parts per million.
    """
    _not_negative(amount)
    for index, use in enumerate(uses):
        fits = would_fit(use, waiting=waiting, share_ppm=share_ppm)
        if amount > fits:
            by_share = waiting and amount <= use.left
            return Shortfall(index=index, needed=amount, would_fit=fits, waiting_share=by_share)
    return tuple(_changed(use, reserved=amount, waiting=amount if waiting else 0) for use in uses)


def confirm(use: BudgetUse, held: NanoUsd) -> BudgetUse:
    """The approval came: a waiting hold becomes a firm one. It was counted fully, so nothing can be short."""
    _not_negative(held)
    return _changed(use, waiting=-held)


def release(use: BudgetUse, held: NanoUsd, *, waiting: bool) -> BudgetUse:
    """Give a hold back whole: rejected, expired, cancelled before its start, or moved to another window."""
    _not_negative(held)
    return _changed(use, reserved=-held, waiting=-held if waiting else 0)


def settle(use: BudgetUse, held: NanoUsd, spent: NanoUsd) -> BudgetUse:
    """End a firm hold: what was spent is booked, the rest is free again.

    Raises:
        ValueError: more was spent than held. The prices make that impossible, so it is a bug, not a case.
    """
    _not_negative(held)
    _not_negative(spent)
    if spent > held:
        raise ValueError(f"spent {spent} nano-USD of a hold of {held}")
    return _changed(use, reserved=-held, spent=spent)


def _changed(use: BudgetUse, *, spent: int = 0, reserved: int = 0, waiting: int = 0) -> BudgetUse:
    changed = BudgetUse(
        limit=use.limit,
        spent=NanoUsd(use.spent + spent),
        reserved=NanoUsd(use.reserved + reserved),
        waiting=NanoUsd(use.waiting + waiting),
    )
    if changed.waiting > changed.reserved:
        raise ValueError(f"waiting holds ({changed.waiting}) are more than all holds ({changed.reserved})")
    return changed


def _not_negative(amount: int) -> None:
    if amount < 0:
        raise ValueError(f"an amount cannot be negative ({amount})")
