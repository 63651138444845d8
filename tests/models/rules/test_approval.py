from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.approval import (
    ApprovalQuestion,
    ApprovalRequirement,
    ApprovalStatus,
    ApprovalTier,
    DecisionAllowed,
    DecisionRefused,
    DecisionView,
    Human,
    Verdict,
)
from models.domain.principal import Principal, PrincipalKind, Role
from models.domain.risk import RiskLevel
from models.rules.approval import human_of, may_decide, may_see, requirement_for, same_human, tally
from models.rules.policy import default_text, load

HOLDING, SUB, OTHER = (UUID(int=n) for n in (1, 2, 3))
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def needs(level: str = "L3", **changes: Any) -> ApprovalRequirement:
    tier = "holding" if level in ("L4", "L5") else "tenant"
    fields = {"level": level, "tier": tier, "quorum": 1, "expires_after_seconds": 3600}
    return ApprovalRequirement.model_validate({**fields, **changes})


def person(number: int, tenant: UUID = SUB, *roles: Role, **changes: Any) -> Principal:
    fields: dict[str, Any] = {
        "tenant_id": tenant,
        "id": UUID(int=100 + number),
        "kind": PrincipalKind.USER,
        "subject": f"sub-{number}",
        "email": f"person{number}@example.com",
        "roles": frozenset(roles),
    }
    return Principal.model_validate({**fields, **changes})


ASKER = person(0, SUB, Role.REQUESTER, Role.APPROVER)


def question(requirement: ApprovalRequirement, **changes: Any) -> ApprovalQuestion:
    fields: dict[str, Any] = {
        "requirement": requirement,
        "item_tenant_id": SUB,
        "holding_tenant_id": HOLDING,
        "requesters": (human_of(ASKER),),
        "status": ApprovalStatus.PENDING,
        "expires_at": NOW + timedelta(hours=1),
    }
    return ApprovalQuestion.model_validate({**fields, **changes})


def vote(principal: Principal, verdict: str = "approve", *, as_holding: bool = False) -> DecisionView:
    return DecisionView(verdict=Verdict(verdict), as_holding=as_holding, **dict(human_of(principal)))


def code(asked: ApprovalQuestion, decider: Principal, *votes: DecisionView, reason: str | None = None) -> str:
    answer = may_decide(asked, decider, votes, now=NOW, reason=reason)
    return "" if isinstance(answer, DecisionAllowed) else answer.code.value


APPROVER = person(1, SUB, Role.APPROVER)
HOLDER = person(2, HOLDING, Role.HOLDING_APPROVER)


@pytest.mark.parametrize(
    ("level", "decider", "expected"),
    [
        ("L3", APPROVER, ""),
        ("L3", HOLDER, ""),
        ("L4", HOLDER, ""),
        ("L5", HOLDER, ""),
        ("L4", APPROVER, "holding_only"),
        ("L5", APPROVER, "holding_only"),
        ("L4", person(3, SUB, Role.HOLDING_APPROVER), "holding_only"),
        ("L4", person(3, SUB, *Role), "holding_only"),
        ("L4", person(3, HOLDING, Role.APPROVER, Role.HOLDING_ADMIN, Role.BREAK_GLASS), "holding_only"),
        ("L3", person(3, SUB, Role.TENANT_ADMIN, Role.BREAK_GLASS), "role_missing"),
        ("L3", person(3, HOLDING, Role.APPROVER, Role.HOLDING_ADMIN), "role_missing"),
        ("L3", person(3, OTHER, Role.APPROVER, Role.HOLDING_APPROVER), "foreign_tenant"),
        ("L3", ASKER, "own_request"),
        ("L3", person(3, SUB, Role.APPROVER, kind=PrincipalKind.ASSISTANT), "not_a_human"),
        ("L4", person(3, HOLDING, Role.HOLDING_APPROVER, kind=PrincipalKind.SERVICE), "not_a_human"),
        ("L4", person(3, HOLDING, Role.HOLDING_APPROVER, subject=" SUB-0"), "own_request"),
        ("L4", person(3, HOLDING, Role.HOLDING_APPROVER, email="Person0@Example.com"), "own_request"),
        ("L4", person(3, HOLDING, Role.HOLDING_APPROVER, subject="person0@example.com"), "own_request"),
    ],
)
def test_who_may_decide(level: str, decider: Principal, expected: str):
    asked = question(needs(level))
    assert code(asked, decider) == expected
    assert may_see(asked, decider) == (expected == "")


def test_a_vote_says_whether_it_is_the_holdings():
    for decider, as_holding in ((APPROVER, False), (HOLDER, True)):
        answer = may_decide(question(needs()), decider, (), now=NOW, reason=None)
        assert answer == DecisionAllowed(as_holding=as_holding)


def test_the_holdings_own_items_are_decided_by_its_approvers_or_holding_approvers():
    own = {"item_tenant_id": HOLDING}
    approver = person(4, HOLDING, Role.APPROVER)
    assert code(question(needs("L3"), **own), approver) == ""
    assert code(question(needs("L4"), **own), approver) == "holding_only"
    assert code(question(needs("L4"), **own), HOLDER) == ""
    assert code(question(needs("L3"), **own), APPROVER) == "foreign_tenant"


def test_no_policy_tier_opens_the_highest_levels_to_a_tenant():
    assert code(question(needs("L4", tier="tenant")), APPROVER) == "holding_only"
    assert tally(needs("L4", tier="tenant"), [vote(APPROVER)]).status is ApprovalStatus.PENDING


@pytest.mark.parametrize("status", [status for status in ApprovalStatus if status is not ApprovalStatus.PENDING])
def test_a_closed_question_takes_no_vote(status: ApprovalStatus):
    assert code(question(needs(), status=status), APPROVER) == "already_closed"


def test_the_moment_of_expiry_is_too_late():
    assert code(question(needs(), expires_at=NOW), APPROVER) == "expired"
    assert code(question(needs(), expires_at=NOW + timedelta(microseconds=1)), APPROVER) == ""


def test_one_human_one_vote_also_by_a_second_account():
    first = vote(APPROVER, as_holding=False)
    twin = person(9, HOLDING, Role.HOLDING_APPROVER, email=APPROVER.email)
    assert code(question(needs(quorum=2)), APPROVER, first) == "already_voted"
    assert code(question(needs(quorum=2)), twin, first) == "already_voted"
    assert code(question(needs(quorum=2)), person(5, SUB, Role.APPROVER), first) == ""


@pytest.mark.parametrize(("acr", "expected"), [(None, "acr_too_low"), ("1", "acr_too_low"), ("2", ""), ("3", "")])
def test_a_strong_sign_in_is_asked_for(acr: str | None, expected: str):
    asked = question(needs(requires_acr=("2", "3")))
    assert code(asked, person(1, SUB, Role.APPROVER, acr=acr)) == expected


@pytest.mark.parametrize(("reason", "expected"), [(None, "reason_missing"), (" \n", "reason_missing"), ("fine", "")])
def test_a_reason_is_asked_for(reason: str | None, expected: str):
    assert code(question(needs(reason_required=True)), APPROVER, reason=reason) == expected


def test_every_refusal_speaks_to_the_one_who_tried():
    answer = may_decide(question(needs("L4")), APPROVER, (), now=NOW, reason=None)
    assert isinstance(answer, DecisionRefused)
    assert "holding alone" in answer.words


def test_the_default_policy_asks_nobody_for_the_lowest_levels():
    policy = load(default_text())
    asked = {level: requirement_for(policy, level) for level in RiskLevel}
    assert [level for level, requirement in asked.items() if requirement is None] == [
        RiskLevel.L0,
        RiskLevel.L1,
    ]
    for level in (RiskLevel.L4, RiskLevel.L5):
        requirement = asked[level]
        assert requirement is not None
        assert requirement.tier is ApprovalTier.HOLDING
        assert requirement.reason_required
        assert requirement.requires_acr


# Few humans, accounts and tenants, so that one human comes back by another account often.
ACCOUNTS = st.builds(
    person,
    st.integers(0, 3),
    st.sampled_from([SUB, HOLDING]),
    subject=st.sampled_from(["a", "A ", "b", "c", "d"]),
    email=st.sampled_from([None, "a@example.com", "A@EXAMPLE.com", "b@example.com"]),
)
VOTES = st.lists(
    st.builds(vote, ACCOUNTS, st.sampled_from(["approve", "approve", "reject"]), as_holding=st.booleans()),
    max_size=5,
)
REQUIREMENTS = st.builds(needs, st.sampled_from(["L2", "L3", "L4", "L5"]), quorum=st.integers(1, 3))
ASKERS = st.lists(ACCOUNTS.map(human_of), max_size=2)


@given(REQUIREMENTS, VOTES, ASKERS)
def test_the_order_of_votes_makes_no_difference(
    requirement: ApprovalRequirement, votes: list[DecisionView], askers: list[Human]
):
    first = tally(requirement, votes, askers)
    assert all(tally(requirement, order, askers) == first for order in permutations(votes))


@given(REQUIREMENTS, VOTES, ASKERS)
def test_what_an_approval_always_has(requirement: ApprovalRequirement, votes: list[DecisionView], askers: list[Human]):
    answer = tally(requirement, votes, askers)
    right = [one for one in votes if one.as_holding or not requirement.level.holding_only]
    free = [one for one in right if not any(same_human(one, asker) for asker in askers)]
    approvers = {(one.tenant_id, one.user_id) for one in free if one.verdict is Verdict.APPROVE}
    if answer.status is ApprovalStatus.APPROVED:
        assert len(approvers) >= answer.approvals >= requirement.quorum
        subjects = {one.subject.strip().casefold() for one in free if one.verdict is Verdict.APPROVE}
        assert len(subjects) >= requirement.quorum
        if requirement.level.holding_only:
            assert sum(one.as_holding for one in votes) >= requirement.quorum
    if not askers and any(one.verdict is Verdict.REJECT for one in right):
        assert answer.status is ApprovalStatus.REJECTED
    if not right:
        assert answer.status is ApprovalStatus.PENDING


@given(REQUIREMENTS, VOTES, st.builds(vote, ACCOUNTS, st.just("reject"), as_holding=st.just(True)))
def test_a_rejection_undoes_any_number_of_approvals(
    requirement: ApprovalRequirement, votes: list[DecisionView], veto: DecisionView
):
    assert tally(requirement, [*votes, veto]).status is ApprovalStatus.REJECTED


def test_being_one_person_carries_over():
    one = person(1, SUB, subject="x", email=None)
    two = person(2, HOLDING, subject="x", email="x@example.com")
    three = person(3, HOLDING, subject="y", email="x@example.com")
    answer = tally(needs(quorum=2), [vote(one), vote(three), vote(two)])
    assert (answer.approvals, answer.status) == (1, ApprovalStatus.PENDING)


@pytest.mark.parametrize("account", [ASKER, person(7, HOLDING, Role.HOLDING_APPROVER, email=ASKER.email)])
def test_a_vote_of_who_asked_does_not_count_however_it_got_there(account: Principal):
    asked_by = [human_of(ASKER)]
    assert tally(needs(), [vote(account)], asked_by).status is ApprovalStatus.PENDING
    assert tally(needs(), [vote(account), vote(APPROVER)], asked_by).approvals == 1
    assert tally(needs(), [vote(account, "reject"), vote(APPROVER)], asked_by).status is ApprovalStatus.APPROVED
