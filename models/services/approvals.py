"""Approvals: opened, decided, expired, cancelled. Each is one transaction, and its outcome stands at once."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.approval import ApprovalRequirement, ApprovalStatus
from models.domain.errors import Conflict, NotFound
from models.domain.principal import Principal
from models.domain.risk import RiskLevel
from models.domain.work_item import WorkItemStatus
from models.repositories import actions as action_rows
from models.repositories import approvals as rows
from models.repositories import tenants as tenant_rows
from models.repositories import work_items as item_rows
from models.rules import approval as rules
from models.services import audit, lifecycle, policies
from models.services.action_approvals import lock_approval, subject_ended
from models.services.approval_views import list_mine, read, votes_in_words
from models.services.decisions import decide
from models.services.ids import new_id
from models.services.outbox import OutboxKind, enqueue
from models.services.who_decides import who_decides
from models.tables.work import ApprovalRow, RiskAssessmentRow, WorkItemRow

__all__ = [
    "cancel",
    "decide",
    "expire",
    "is_needed",
    "list_mine",
    "open_approval",
    "outcome",
    "read",
    "requirement_of",
    "tell_approvers",
    "votes_in_words",
]


async def open_approval(session: AsyncSession, principal: Principal, work_item_id: UUID) -> ApprovalRow:
    """Ask the humans that the item's level calls for, and move the item to `awaiting_approval`.

    Safe to repeat: an approval of exactly this spec (open, or ended by a decision or by time) is answered as it
    stands; only a cancelled one is asked anew.

    Raises:
        NotFound: Not an item of the bound tenant.
        Conflict: The item is final, not assessed, or needs nobody's approval.
    """
    item = await lifecycle.lock_work_item(session, work_item_id)
    known = await rows.newest_for(session, item.tenant_id, item.id, item.spec_digest)
    if known is not None and known.status != ApprovalStatus.CANCELLED:
        return known
    assessment = await item_rows.latest_assessment(session, item.id)
    if assessment is None or item.risk_level is None:
        raise Conflict("the work item has not been assessed", current=item.status)
    policy = await policies.pinned(session, item.tenant_id, item.policy_version_id)
    requirement = rules.requirement_for(policy, RiskLevel(item.risk_level))
    if requirement is None:
        raise Conflict(f"{item.risk_level} goes on by itself; there is nothing to approve", level=item.risk_level)
    row = await _ask(session, item, assessment, requirement)
    who = await who_decides(session, item.tenant_id, requirement)
    until = row.expires_at.isoformat(timespec="seconds")
    audit.record(
        session,
        principal,
        kind="approval.opened",
        subject=f"approval/{row.id}",
        summary=f"Asked {who} about “{item.title}” ({requirement.level.value}), until {until}",
        work_item_id=item.id,
        data={"subject_digest": row.subject_digest, "requirement": row.requirement, "expires_at": until},
    )
    if item.status != WorkItemStatus.AWAITING_APPROVAL:
        await lifecycle.move(
            session, principal, item, WorkItemStatus.AWAITING_APPROVAL, summary=f"Waits for {who}, until {until}"
        )
    return row


async def expire(session: AsyncSession, principal: Principal, approval_id: UUID) -> ApprovalRow:
    """Expire an open approval whose time has passed by the database's clock; answers whatever outcome stands.

    INVARIANT: it takes the same row lock as a decision, so of the two exactly one is the outcome.
    """
    row, item = await lock_approval(session, approval_id)
    now = await tenant_rows.database_now(session)
    if row.status == ApprovalStatus.PENDING and now >= row.expires_at:
        row.reason = f"nobody decided until {row.expires_at.isoformat(timespec='seconds')}"
        await _end(session, principal, row, item, ApprovalStatus.EXPIRED)
    return row


async def cancel(session: AsyncSession, principal: Principal, approval_id: UUID, reason: str) -> ApprovalRow:
    """Close an approval that nobody needs any more; answers whatever outcome stands."""
    row, item = await lock_approval(session, approval_id)
    if row.status == ApprovalStatus.PENDING:
        row.reason = reason
        await _end(session, principal, row, item, ApprovalStatus.CANCELLED)
    return row


async def outcome(session: AsyncSession, approval_id: UUID) -> ApprovalRow:
    """The approval as PostgreSQL holds it now.

    Raises:
        NotFound: The session sees no such approval.
    """
    row = await rows.get(session, approval_id)
    if row is None:
        raise NotFound(f"there is no approval {approval_id}")
    return row


async def tell_approvers(session: AsyncSession, principal: Principal, approval_id: UUID) -> ApprovalRow:
    """Record that the approvers were reminded (an open approval only); answers the outcome as it stands."""
    row, _ = await lock_approval(session, approval_id)
    if row.status == ApprovalStatus.PENDING:
        who = await who_decides(session, row.tenant_id, requirement_of(row))
        audit.record(
            session,
            principal,
            kind="approval.reminded",
            subject=f"approval/{row.id}",
            summary=f"Reminded {who}",
            work_item_id=row.work_item_id,
        )
    return row


def requirement_of(row: ApprovalRow) -> ApprovalRequirement:
    """What it takes, as pinned when the approval was opened."""
    return ApprovalRequirement.model_validate(row.requirement)


async def _ask(
    session: AsyncSession, item: WorkItemRow, assessment: RiskAssessmentRow, requirement: ApprovalRequirement
) -> ApprovalRow:
    now = await tenant_rows.database_now(session)
    row = ApprovalRow(
        tenant_id=item.tenant_id,
        id=new_id(),
        work_item_id=item.id,
        assessment_id=assessment.id,
        policy_version_id=item.policy_version_id,
        level=requirement.level.value,
        subject_digest=item.spec_digest,
        requirement=requirement.model_dump(mode="json"),
        tier=requirement.tier.value,
        created_at=now,
        expires_at=now + timedelta(seconds=requirement.expires_after_seconds),
    )
    session.add(row)
    await session.flush()
    return row


async def is_needed(session: AsyncSession, row: ApprovalRow) -> bool:
    """Whether what waits for the approval still lives, as PostgreSQL holds it."""
    if row.action_set_id is not None:
        return True
    if row.action_id is not None:
        action = await action_rows.get(session, row.action_id)
        return action is not None and action.ended_at is None
    item = await item_rows.get(session, row.work_item_id) if row.work_item_id is not None else None
    return item is not None and item.ended_at is None and item.cancel_requested_at is None


async def _end(
    session: AsyncSession, principal: Principal, row: ApprovalRow, item: WorkItemRow | None, status: ApprovalStatus
) -> None:
    row.status, row.ended_at = status.value, await tenant_rows.database_now(session)
    session.add(row)
    audit.record(
        session,
        principal,
        kind=f"approval.{status.value}",
        subject=f"approval/{row.id}",
        summary=f"The approval is {status.value}: {row.reason}",
        work_item_id=row.work_item_id,
        data={"subject_digest": row.subject_digest, "reason": row.reason},
    )
    await subject_ended(session, principal, row, item)
    if row.work_item_id is not None:
        enqueue(session, row.tenant_id, OutboxKind.SIGNAL_WORK_ITEM, {"work_item_id": str(row.work_item_id)})
    enqueue(session, row.tenant_id, OutboxKind.SIGNAL_APPROVAL, {"approval_id": str(row.id)})
    await session.flush()
