"""Nobody knows whether it was done: people are asked whether to try again (`effect_answers` takes their answer)."""

from __future__ import annotations

from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import ActionStatus, again_digest
from models.domain.approval import ApprovalStatus
from models.domain.principal import Principal
from models.domain.risk import RiskLevel
from models.repositories import approvals as approval_rows
from models.repositories import effects as rows
from models.repositories import tenants as tenant_rows
from models.rules.effect import TryState
from models.services import audit, policies
from models.services.action_approvals import open_question
from models.services.effect_leave import again_requirement, as_try
from models.services.effect_warrants import Standing
from models.services.ids import new_id
from models.services.outbox import OutboxKind, enqueue
from models.tables.actions import ActionRow
from models.tables.work import ApprovalRow


async def ask_again(session: AsyncSession, principal: Principal, standing: Standing) -> None:
    """Ask of the newest try that nobody knows of: yes tries again, no leaves it. The action is `unknown` meanwhile."""
    action = standing.action
    made = await rows.tries(session, action.tenant_id, action.id)
    doubtful = next(row for row in reversed(made) if row.state == TryState.UNKNOWN)
    digest = again_digest(action.digest, as_try(doubtful).warrant_id)
    asked = await rows.approvals_of_action(session, action.tenant_id, action.id)
    known = [row for row in asked if row.subject_digest == digest]
    if not known:
        await _open(session, principal, action, digest)
    action.status, action.updated_at = ActionStatus.UNKNOWN.value, await tenant_rows.database_now(session)
    action.words = f"not known whether it was done ({action.words}); people are asked whether to try again"
    session.add(action)
    await session.flush()


async def _open(session: AsyncSession, principal: Principal, action: ActionRow, digest: str) -> ApprovalRow:
    assessed = await rows.assessments(session, action.tenant_id, action.id)
    policy = await policies.pinned(session, action.tenant_id, action.policy_version_id)
    requirement = again_requirement(policy, RiskLevel(action.level))
    row = await open_question(
        session,
        principal,
        approval=ApprovalRow(
            tenant_id=action.tenant_id,
            id=new_id(),
            work_item_id=action.work_item_id,
            action_id=action.id,
            assessment_id=assessed[-1].id,
            policy_version_id=action.policy_version_id,
            level=requirement.level.value,
            subject_digest=digest,
            tier=requirement.tier.value,
        ),
        requirement=requirement,
        about=f"{action.kind} → {action.target}: nobody knows whether it was done; yes tries again, no leaves it",
    )
    action.approval_id = row.id
    return row


async def nobody_asks_any_more(session: AsyncSession, principal: Principal, action: ActionRow) -> None:
    """Close an open question on an action that has ended: what came late has answered it."""
    for seen in await rows.approvals_of_action(session, action.tenant_id, action.id):
        if seen.status == ApprovalStatus.PENDING:
            await _close(session, principal, seen.id, action)


async def _close(session: AsyncSession, principal: Principal, approval_id: UUID, action: ActionRow) -> None:
    row = await approval_rows.lock(session, approval_id)
    if row is None or row.status != ApprovalStatus.PENDING:
        return
    row.status, row.reason = ApprovalStatus.CANCELLED.value, f"the action is {action.status}"
    row.ended_at = await tenant_rows.database_now(session)
    session.add(row)
    audit.record(
        session,
        principal,
        kind="approval.cancelled",
        subject=f"approval/{row.id}",
        summary=f"Nobody needs to decide any more: the action is {action.status}",
        work_item_id=row.work_item_id,
        data={"reason": row.reason},
    )
    enqueue(session, row.tenant_id, OutboxKind.SIGNAL_APPROVAL, {"approval_id": str(row.id)})
