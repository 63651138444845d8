"""Whether humans have allowed exactly what would run: recomputed from rows that nobody can change."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.approval import ApprovalRequirement, ApprovalStatus, DecisionView, Human
from models.domain.risk import RiskLevel
from models.repositories import approvals as approval_rows
from models.repositories import assistants as assistant_rows
from models.repositories import principals as principal_rows
from models.repositories import tenants as tenant_rows
from models.repositories import work_items as item_rows
from models.rules.approval import requirement_for, tally
from models.services import policies
from models.services.approval_views import decision_view
from models.tables.tenancy import PrincipalRow
from models.tables.work import ApprovalRow, DecisionRow, WorkItemRow


async def missing_approval(session: AsyncSession, item: WorkItemRow) -> str | None:
    """Why the item may not run for want of an approval, in words; None: it may.

    INVARIANT: the level comes from the assessment and the votes from the decisions, both of which the application can
    only add to; the requirement from the pinned policy version. The item's and the approval's own words are not
    enough, and a vote on another digest is none.
    """
    assessment = await item_rows.latest_assessment(session, item.id)
    if assessment is None:
        return "its risk was never assessed"
    level = RiskLevel(assessment.level)
    if item.risk_level != level.value:
        return f"its row says {item.risk_level}, its assessment {level}"
    policy = await policies.pinned(session, item.tenant_id, item.policy_version_id)
    requirement = requirement_for(policy, level)
    if requirement is None:
        return None
    approval = await approval_rows.newest_for(session, item.tenant_id, item.id, item.spec_digest)
    if approval is None:
        return f"{level} needs an approval of exactly this spec, and there is none"
    if approval.status != ApprovalStatus.APPROVED:
        return f"its approval is {approval.status}"
    askers = await askers_of(session, item.tenant_id, item.assistant_id, item.requester_id)
    return await missing_votes(session, approval, requirement, item.spec_digest, askers)


async def missing_votes(
    session: AsyncSession,
    approval: ApprovalRow,
    requirement: ApprovalRequirement,
    digest: str,
    askers: Sequence[Human],
) -> str | None:
    """Why the votes on exactly this digest do not approve it, in words; None: they do."""
    holding = await _holding_of(session, approval.tenant_id)
    decisions = await approval_rows.decisions(session, approval.tenant_id, [approval.id])
    votes = [_vote(row, holding) for row in decisions if row.subject_digest == digest]
    counted = tally(requirement, votes, askers)
    if counted.status is not ApprovalStatus.APPROVED:
        return f"its votes do not approve it: {counted.words}"
    return None


async def _holding_of(session: AsyncSession, tenant_id: UUID) -> UUID:
    tenant = await tenant_rows.get(session, tenant_id)
    return tenant_id if tenant is None or tenant.parent_tenant_id is None else tenant.parent_tenant_id


def _vote(row: DecisionRow, holding: UUID) -> DecisionView:
    """As it was recorded, and of the holding only if that is the holding."""
    vote = decision_view(row)
    return vote.model_copy(update={"as_holding": vote.as_holding and vote.tenant_id == holding})


async def askers_of(
    session: AsyncSession, tenant_id: UUID, assistant_id: UUID, requester_id: UUID | None
) -> list[Human]:
    """Whose votes do not count: who asked, and the human who answers for the assistant."""
    assistant = await assistant_rows.get(session, assistant_id)
    ids = {requester_id} if requester_id is not None else set[UUID]()
    if assistant is not None and assistant.owner_id is not None:
        ids.add(assistant.owner_id)
    found = [await principal_rows.get(session, tenant_id, wanted) for wanted in ids]
    return [_human(row) for row in found if row is not None]


def _human(row: PrincipalRow) -> Human:
    return Human(tenant_id=row.tenant_id, user_id=row.id, subject=row.subject, email=row.email)
