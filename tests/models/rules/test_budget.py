"""The budget's arithmetic against a reference: a plain list of holds, added up anew after every step."""

from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from models.domain.budget import BudgetUse
from models.domain.money import PPM, NanoUsd
from models.rules.budget import Shortfall, confirm, hold, release, settle, would_fit

HALF = PPM // 2
AMOUNTS = st.integers(0, 60).map(NanoUsd)


@dataclass
class Held:
    amount: NanoUsd
    waiting: bool


class Budgets(RuleBasedStateMachine):
    """Two budgets (an assistant's and a tenant's) that every hold touches."""

    @initialize(small=st.integers(0, 100), large=st.integers(0, 300), share=st.sampled_from([0, 333_333, HALF, PPM]))
    def begin(self, small: int, large: int, share: int):
        self.limits = (small, large)
        self.share = share
        self.uses = tuple(BudgetUse(limit=NanoUsd(limit)) for limit in self.limits)
        self.held: list[Held] = []
        self.spent = 0

    @rule(amount=AMOUNTS, waiting=st.booleans())
    def take(self, amount: NanoUsd, waiting: bool):
        reserved = sum(one.amount for one in self.held)
        waits = sum(one.amount for one in self.held if one.waiting)
        fits = all(
            self.spent + reserved + amount <= limit and (not waiting or PPM * (waits + amount) <= limit * self.share)
            for limit in self.limits
        )
        answer = hold(self.uses, amount, waiting=waiting, share_ppm=self.share)
        assert isinstance(answer, tuple) == fits
        if isinstance(answer, tuple):
            self.uses = answer
            self.held.append(Held(amount, waiting))
        else:
            short = self.uses[answer.index]
            assert answer.would_fit == would_fit(short, waiting=waiting, share_ppm=self.share) < amount

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject):
        one = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.uses = tuple(release(use, one.amount, waiting=one.waiting) for use in self.uses)

    @precondition(lambda self: any(one.waiting for one in self.held))
    @rule(data=st.data())
    def approve(self, data: st.DataObject):
        one = data.draw(st.sampled_from([one for one in self.held if one.waiting]))
        self.uses = tuple(confirm(use, one.amount) for use in self.uses)
        one.waiting = False

    @precondition(lambda self: any(not one.waiting for one in self.held))
    @rule(data=st.data())
    def end(self, data: st.DataObject):
        index = data.draw(st.sampled_from([i for i, one in enumerate(self.held) if not one.waiting]))
        one = self.held.pop(index)
        spent = NanoUsd(data.draw(st.integers(0, one.amount)))
        self.uses = tuple(settle(use, one.amount, spent) for use in self.uses)
        self.spent += spent

    @invariant()
    def agrees_with_the_list(self):
        for use in getattr(self, "uses", ()):
            assert use.spent == self.spent
            assert use.reserved == sum(one.amount for one in self.held)
            assert use.waiting == sum(one.amount for one in self.held if one.waiting)
            assert use.spent + use.reserved <= use.limit
            assert PPM * use.waiting <= use.limit * self.share
            assert use.left == use.limit - use.spent - use.reserved


TestBudgets = Budgets.TestCase


def use(limit: int, spent: int = 0, reserved: int = 0, waiting: int = 0) -> BudgetUse:
    return BudgetUse(limit=NanoUsd(limit), spent=NanoUsd(spent), reserved=NanoUsd(reserved), waiting=NanoUsd(waiting))


def test_all_or_nothing_names_the_budget_that_is_short():
    answer = hold([use(100), use(100, spent=70, reserved=20)], NanoUsd(11), waiting=False, share_ppm=HALF)
    assert answer == Shortfall(index=1, needed=NanoUsd(11), would_fit=NanoUsd(10), waiting_share=False)


def test_waiting_holds_take_their_share_and_no_more():
    assert isinstance(hold([use(100)], NanoUsd(50), waiting=True, share_ppm=HALF), tuple)
    answer = hold([use(100, reserved=50, waiting=50)], NanoUsd(1), waiting=True, share_ppm=HALF)
    assert answer == Shortfall(index=0, needed=NanoUsd(1), would_fit=NanoUsd(0), waiting_share=True)
    assert isinstance(hold([use(100, reserved=50, waiting=50)], NanoUsd(50), waiting=False, share_ppm=HALF), tuple)


def test_a_lowered_limit_leaves_nothing_and_breaks_nothing():
    lowered = use(50, spent=40, reserved=40, waiting=10)
    assert lowered.left == 0
    assert isinstance(hold([lowered], NanoUsd(1), waiting=False, share_ppm=HALF), Shortfall)
    assert settle(confirm(lowered, NanoUsd(10)), NanoUsd(40), NanoUsd(5)) == use(50, spent=45)


def test_no_budget_at_all_holds_everything():
    assert hold([], NanoUsd(10**18), waiting=True, share_ppm=HALF) == ()


def test_what_can_only_be_a_bug_is_refused():
    with pytest.raises(ValueError, match="of a hold"):
        settle(use(100, reserved=10), NanoUsd(10), NanoUsd(11))
    with pytest.raises(ValueError):
        release(use(100, reserved=10), NanoUsd(11), waiting=False)
    with pytest.raises(ValueError, match="waiting holds"):
        release(use(100, reserved=10, waiting=10), NanoUsd(5), waiting=False)
    with pytest.raises(ValueError, match="negative"):
        hold([use(100)], NanoUsd(-1), waiting=False, share_ppm=HALF)
