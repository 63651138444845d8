"""Whether an effect is allowed: recomputed from rows that nobody of ours can change. No status is believed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from uuid import UUID

import rfc8785
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import again_digest
from models.domain.approval import ApprovalRequirement, ApprovalStatus
from models.domain.policy import Policy
from models.domain.risk import RiskLevel
from models.repositories import actions as action_rows
from models.repositories import effects as rows
from models.rules.approval import requirement_for
from models.rules.effect import Try, TryState
from models.services import policies
from models.services.action_digests import digest_of
from models.services.approved import askers_of, missing_votes
from models.tables.actions import ActionRow, ActionSetRow, EffectAttemptRow
from models.tables.work import ApprovalRow, WorkItemRow


def set_digest(work_item_id: UUID, members: Sequence[ActionRow]) -> str:
    """Digest of exactly these actions in exactly this order."""
    document = {"work_item": str(work_item_id), "actions": [row.digest for row in members]}
    return hashlib.sha256(rfc8785.dumps(document)).hexdigest()


def again_requirement(policy: Policy, level: RiskLevel) -> ApprovalRequirement:
    """Who says whether to try again what may have been done: whoever decides that level, from L2 on."""
    found = requirement_for(policy, max(level, RiskLevel.L2))
    assert found is not None, "L2 asks people"
    return found


def as_try(row: EffectAttemptRow) -> Try:
    """A recorded try as the rules see it."""
    sent = bool((row.response or {}).get("sent", True))
    return Try(TryState(row.state), UUID(row.request["warrant_id"]), sent)


async def missing_leave(session: AsyncSession, action: ActionRow, item: WorkItemRow | None) -> str | None:
    """Why the action may not be performed for want of leave, in words; None: it may.

    INVARIANT: the level comes from the assessments and the votes from the decisions, both of which the application can
    only add to; the requirement from the pinned policy version; the digest from what the row says now.
    """
    if digest_of(action) != action.digest:
        return "what the action says is not what its digest says"
    level = await assessed_level(session, action)
    if level is None:
        return "its risk was never assessed"
    if action.level != level.value:
        return f"its row says {action.level}, its assessment {level.value}"
    if action.set_id is not None:
        return await _missing_for_set(session, action, item)
    policy = await policies.pinned(session, action.tenant_id, action.policy_version_id)
    requirement = requirement_for(policy, level)
    if requirement is None:
        return None
    asked = await rows.approvals_of_action(session, action.tenant_id, action.id)
    return await _missing_in(session, asked, requirement, action.digest, action, item)


async def granted(session: AsyncSession, action: ActionRow, item: WorkItemRow | None) -> frozenset[UUID]:
    """The warrants of tries of which people have said: not known to be done, try again."""
    level = await assessed_level(session, action)
    if level is None:
        return frozenset()
    policy = await policies.pinned(session, action.tenant_id, action.policy_version_id)
    requirement = again_requirement(policy, level)
    asked = await rows.approvals_of_action(session, action.tenant_id, action.id)
    said: set[UUID] = set()
    for row in await rows.tries(session, action.tenant_id, action.id):
        warrant_id = as_try(row).warrant_id
        digest = again_digest(action.digest, warrant_id)
        if await _missing_in(session, asked, requirement, digest, action, item) is None:
            said.add(warrant_id)
    return frozenset(said)


async def assessed_level(session: AsyncSession, action: ActionRow) -> RiskLevel | None:
    """The highest level that the action was ever assessed at; an edit never raises it."""
    found = await rows.assessments(session, action.tenant_id, action.id)
    return max((RiskLevel(row.level) for row in found), default=None)


async def _missing_for_set(session: AsyncSession, action: ActionRow, item: WorkItemRow | None) -> str | None:
    """A member of a staged set: the set as a whole is allowed, and all before this one are performed."""
    assert action.set_id is not None, "the caller looked"
    if item is None:
        return "a staged set is of a work item"
    found = await rows.lock_set(session, action.tenant_id, action.set_id)
    if found is None or found.work_item_id != item.id:
        return "its set is not of this work item"
    members = await action_rows.of_set(session, found.tenant_id, found.id)
    wrong = await _wrong_set(session, found, members)
    if wrong is not None:
        return wrong
    before = [row for row in members if (row.position or 0) < (action.position or 0)]
    late = next((row for row in before if row.status != "performed"), None)
    if late is not None:
        return f"the action before it ({late.kind} → {late.target}) is {late.status}"
    policy = await policies.pinned(session, item.tenant_id, item.policy_version_id)
    requirement = requirement_for(policy, RiskLevel(found.level))
    if requirement is None:
        return None
    asked = await rows.approvals_of_set(session, found.tenant_id, found.id)
    return await _missing_in(session, asked, requirement, found.digest, action, item)


async def _wrong_set(session: AsyncSession, found: ActionSetRow, members: Sequence[ActionRow]) -> str | None:
    if found.status != "approved":
        return f"its set is {found.status}"
    if any(digest_of(row) != row.digest for row in members) or set_digest(found.work_item_id, members) != found.digest:
        return "the set is not the one that was asked about"
    levels = [await assessed_level(session, row) for row in members]
    highest = max((level for level in levels if level is not None), default=None)
    if None in levels or highest is None or highest.value != found.level:
        return f"the set's level is not {found.level}"
    return None


async def _missing_in(
    session: AsyncSession,
    asked: Sequence[ApprovalRow],
    requirement: ApprovalRequirement,
    digest: str,
    action: ActionRow,
    item: WorkItemRow | None,
) -> str | None:
    """Why none of these questions allows exactly this digest; the newest says so."""
    about = [row for row in asked if row.subject_digest == digest]
    if not about:
        return f"{requirement.level.value} needs an approval of exactly this, and there is none"
    approval = about[-1]
    if approval.status != ApprovalStatus.APPROVED:
        return f"its approval is {approval.status}"
    requester_id = item.requester_id if item is not None else None
    askers = await askers_of(session, action.tenant_id, action.assistant_id, requester_id)
    return await missing_votes(session, approval, requirement, digest, askers)
