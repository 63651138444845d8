"""Who may decide an approval, and how the votes stand.

INVARIANTS: L4–L5 are decided by the holding alone. Who asked never decides. One human has one vote. One
rejection is enough, and fewer approvals than the quorum never are.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime

from models.domain.approval import (
    ApprovalQuestion,
    ApprovalRequirement,
    ApprovalStatus,
    ApprovalTier,
    DecisionAllowed,
    DecisionRefused,
    DecisionView,
    Human,
    RefusalCode,
    Tally,
    Verdict,
)
from models.domain.policy import Policy
from models.domain.principal import Principal, PrincipalKind, Role
from models.domain.risk import RiskLevel


def requirement_for(policy: Policy, level: RiskLevel) -> ApprovalRequirement | None:
    """What it takes to approve an item of this level; None for those that go on by themselves (L0–L1)."""
    rule = policy.approvals.of(level)
    if rule is None:
        return None
    return ApprovalRequirement(
        level=level,
        # The policy says so already; said again here, so that no other way to a Policy can undo it.
        tier=ApprovalTier.HOLDING if level.holding_only else rule.tier,
        quorum=rule.quorum,
        expires_after_seconds=rule.expires_after,
        remind_after_seconds=rule.remind_after,
        requires_acr=rule.requires_acr,
        reason_required=rule.reason_required,
    )


def human_of(principal: Principal) -> Human:
    """The human behind a user's principal."""
    return Human(
        tenant_id=principal.tenant_id,
        user_id=principal.id,
        subject=principal.subject,
        email=principal.email,
    )


def may_decide(
    question: ApprovalQuestion,
    decider: Principal,
    decisions: Sequence[DecisionView],
    *,
    now: datetime,
    reason: str | None,
) -> DecisionAllowed | DecisionRefused:
    """Whether this principal may vote on this approval now.

    Args:
        question: The approval, read under its row lock.
        decider: Who wants to vote.
        decisions: The votes already recorded.
        now: The database's clock.
        reason: What the decider wrote; blank counts as nothing.
    """
    as_holding = _speaks_for_holding(question, decider)
    human = human_of(decider)
    refusal = (
        _refused_by_right(question, decider, as_holding=as_holding)
        or _refused_by_state(question, human, decisions, now)
        or _refused_by_form(question.requirement, decider, reason)
    )
    return refusal or DecisionAllowed(as_holding=as_holding)


def may_see(question: ApprovalQuestion, principal: Principal) -> bool:
    """Whether the approval belongs on this principal's list: they have the right, whatever its state is."""
    as_holding = _speaks_for_holding(question, principal)
    return _refused_by_right(question, principal, as_holding=as_holding) is None


def tally(
    requirement: ApprovalRequirement, decisions: Iterable[DecisionView], requesters: Iterable[Human] = ()
) -> Tally:
    """How the votes stand; the order in which they came makes no difference.

    Votes that could not have been written (of the wrong tier, of who asked, a human's second) do not count:
    a row that got there otherwise decides nothing.
    """
    holding_votes_only = requirement.tier is ApprovalTier.HOLDING or requirement.level.holding_only
    votes = [vote for vote in decisions if vote.as_holding or not holding_votes_only]
    askers = tuple(requesters)
    people = [group for group in _people((*votes, *askers)) if not any(one in askers for one in group)]
    vetoed = any(_said(group, Verdict.REJECT) for group in people)
    approvals = sum(_said(group, Verdict.APPROVE) for group in people)
    if vetoed:
        status, words = ApprovalStatus.REJECTED, "Rejected: one rejection is enough."
    elif approvals >= requirement.quorum:
        status, words = ApprovalStatus.APPROVED, f"Approved by {approvals} of {requirement.quorum} needed."
    else:
        status, words = ApprovalStatus.PENDING, f"{approvals} of {requirement.quorum} approvals."
    return Tally(status=status, approvals=approvals, quorum=requirement.quorum, words=words)


def same_human(one: Human, other: Human) -> bool:
    """Whether two accounts are one person: the same user of a tenant, the same subject or e-mail address."""
    if (one.tenant_id, one.user_id) == (other.tenant_id, other.user_id):
        return True
    return bool(_names(one) & _names(other))


def _speaks_for_holding(question: ApprovalQuestion, decider: Principal) -> bool:
    return decider.tenant_id == question.holding_tenant_id and Role.HOLDING_APPROVER in decider.roles


def _refused_by_right(
    question: ApprovalQuestion, decider: Principal, *, as_holding: bool
) -> DecisionRefused | None:
    if decider.kind is not PrincipalKind.USER:
        return _no(RefusalCode.NOT_A_HUMAN, "Only people decide; assistants and services never do.")
    if decider.tenant_id not in (question.item_tenant_id, question.holding_tenant_id):
        return _no(RefusalCode.FOREIGN_TENANT, "This belongs to another company.")
    requirement = question.requirement
    holding_only = requirement.tier is ApprovalTier.HOLDING or requirement.level.holding_only
    if holding_only and not as_holding:
        return _no(
            RefusalCode.HOLDING_ONLY,
            f"{requirement.level} is decided by the holding alone: it takes one of its holding approvers.",
        )
    own_approver = decider.tenant_id == question.item_tenant_id and Role.APPROVER in decider.roles
    if not (as_holding or own_approver):
        return _no(RefusalCode.ROLE_MISSING, "You need the role approver in this company to decide.")
    if any(same_human(human_of(decider), requester) for requester in question.requesters):
        return _no(RefusalCode.OWN_REQUEST, "You asked for this work, so somebody else must decide.")
    return None


def _refused_by_state(
    question: ApprovalQuestion, human: Human, decisions: Sequence[DecisionView], now: datetime
) -> DecisionRefused | None:
    if question.status is not ApprovalStatus.PENDING:
        return _no(RefusalCode.ALREADY_CLOSED, f"This is closed already: {question.status}.")
    if now >= question.expires_at:
        return _no(RefusalCode.EXPIRED, f"The time to decide ended at {question.expires_at.isoformat()}.")
    if any(same_human(human, vote) for vote in decisions):
        return _no(RefusalCode.ALREADY_VOTED, "You have voted on this already; one human has one vote.")
    return None


def _refused_by_form(
    requirement: ApprovalRequirement, decider: Principal, reason: str | None
) -> DecisionRefused | None:
    wanted = requirement.requires_acr
    if wanted and decider.acr not in wanted:
        return _no(
            RefusalCode.ACR_TOO_LOW,
            f"{requirement.level} needs a stronger sign-in (acr {' or '.join(wanted)}); "
            f"yours is {decider.acr or 'not stated'}. Sign in again with your second factor.",
        )
    if requirement.reason_required and not (reason or "").strip():
        return _no(RefusalCode.REASON_MISSING, f"{requirement.level} needs a reason: say why, in a sentence.")
    return None


def _no(code: RefusalCode, words: str) -> DecisionRefused:
    return DecisionRefused(code=code, words=words)


def _names(human: Human) -> frozenset[str]:
    """What a human is called anywhere, in one spelling. An e-mail address may stand in either field."""
    written = (human.subject, human.email or "")
    return frozenset(
        name for text in written if (name := unicodedata.normalize("NFKC", text).strip().casefold())
    )


def _people(accounts: Sequence[Human]) -> list[list[Human]]:
    """Group accounts by person; being one person carries over (A is B, B is C, so A is C)."""
    groups: list[list[Human]] = []
    for account in accounts:
        same = [group for group in groups if any(same_human(account, one) for one in group)]
        groups = [group for group in groups if group not in same]
        groups.append([account, *(one for group in same for one in group)])
    return groups


def _said(group: Sequence[Human], verdict: Verdict) -> bool:
    return any(isinstance(one, DecisionView) and one.verdict is verdict for one in group)
