"""An approval that is about an action, or about a set of them: opened, and locked in the one order."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.approval import ApprovalRequirement
from models.domain.errors import NotFound
from models.domain.principal import Principal
from models.repositories import approvals as rows
from models.repositories import tenants as tenant_rows
from models.repositories import work_items as item_rows
from models.services import action_ends, action_set_ends, audit
from models.services.ids import new_id
from models.services.outbox import OutboxKind, enqueue
from models.services.who_decides import who_decides
from models.tables.actions import ActionRow
from models.tables.work import ApprovalRow, RiskAssessmentRow, WorkItemRow


async def ask(
    session: AsyncSession,
    principal: Principal,
    action: ActionRow,
    item: WorkItemRow | None,
    assessment: RiskAssessmentRow,
    requirement: ApprovalRequirement,
) -> ApprovalRow:
    """Ask the humans that the action's level calls for; a work item waits with it (`awaiting_action`)."""
    row = await open_question(
        session,
        principal,
        approval=ApprovalRow(
            tenant_id=action.tenant_id,
            id=new_id(),
            work_item_id=action.work_item_id,
            action_id=action.id,
            assessment_id=assessment.id,
            policy_version_id=action.policy_version_id,
            level=requirement.level.value,
            subject_digest=action.digest,
            tier=requirement.tier.value,
        ),
        requirement=requirement,
        about=f"{action.kind} → {action.target}",
    )
    action.approval_id = row.id
    who = await who_decides(session, row.tenant_id, requirement)
    until = row.expires_at.isoformat(timespec="seconds")
    action.words = f"waits for {who}, until {until}"
    session.add(action)
    if item is not None:
        await action_ends.waits(session, principal, item, f"{action.kind} → {action.target} {action.words}")
    await session.flush()
    await action_ends.tell(session, action)
    return row


async def open_question(
    session: AsyncSession, principal: Principal, *, approval: ApprovalRow, requirement: ApprovalRequirement, about: str
) -> ApprovalRow:
    """Write an approval with its requirement and its time, audit it, and have its workflow started."""
    now = await tenant_rows.database_now(session)
    approval.requirement = requirement.model_dump(mode="json")
    approval.created_at = now
    approval.expires_at = now + timedelta(seconds=requirement.expires_after_seconds)
    session.add(approval)
    await session.flush()
    who = await who_decides(session, approval.tenant_id, requirement)
    until = approval.expires_at.isoformat(timespec="seconds")
    audit.record(
        session,
        principal,
        kind="approval.opened",
        subject=f"approval/{approval.id}",
        summary=f"Asked {who} about {about} ({requirement.level.value}), until {until}",
        work_item_id=approval.work_item_id,
        data={
            "subject_digest": approval.subject_digest,
            "requirement": approval.requirement,
            "expires_at": until,
            "action_id": str(approval.action_id) if approval.action_id else None,
            "action_set_id": str(approval.action_set_id) if approval.action_set_id else None,
        },
    )
    payload = {
        "approval_id": str(approval.id),
        "work_item_id": str(approval.work_item_id) if approval.work_item_id else None,
    }
    enqueue(session, approval.tenant_id, OutboxKind.START_APPROVAL, payload)
    return approval


async def lock_approval(session: AsyncSession, approval_id: UUID) -> tuple[ApprovalRow, WorkItemRow | None]:
    """Lock an approval of the session's own tenant, and before it the item that waits with its action or set.

    INVARIANT: the order is item → approval → action. An approval of a work item itself needs no lock of the item: its
    outcome moves nothing there.

    Raises:
        NotFound: There is no such approval.
    """
    seen = await rows.get(session, approval_id)
    item = None
    if seen is not None and seen.work_item_id is not None and (seen.action_id or seen.action_set_id):
        item = await item_rows.lock(session, seen.work_item_id)
    row = await rows.lock(session, approval_id)
    if row is None:
        raise NotFound(f"there is no approval {approval_id}")
    return row, item


async def subject_ended(
    session: AsyncSession,
    principal: Principal,
    approval: ApprovalRow,
    item: WorkItemRow | None,
    *,
    edited: bool = False,
) -> None:
    """Take a final approval over into what it is about. A work item's own workflow reads it by itself."""
    if approval.action_id is not None:
        await action_ends.approval_ended(session, principal, approval, item, edited=edited)
    elif approval.action_set_id is not None:
        await action_set_ends.approval_ended(session, principal, approval, item)
