"""What people answer when nobody knows whether an effect was done: it is tried again, or left as it is."""

from __future__ import annotations

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import ActionStatus
from models.domain.approval import ApprovalStatus
from models.domain.principal import Principal
from models.repositories import tenants as tenant_rows
from models.services import audit
from models.services.outbox import OutboxKind, enqueue
from models.tables.actions import ActionRow
from models.tables.work import ApprovalRow


async def answered(session: AsyncSession, principal: Principal, action: ActionRow, approval: ApprovalRow) -> None:
    """Take the answer over into a locked action that is `unknown`: tried again, or left as it is."""
    again = approval.status == ApprovalStatus.APPROVED
    now = await tenant_rows.database_now(session)
    action.updated_at = now
    if again:
        action.status, action.words = ActionStatus.PERFORMING.value, f"to be tried again: {approval.reason}"
        enqueue(session, action.tenant_id, OutboxKind.PERFORM_EFFECT, {"action_id": str(action.id)})
    else:
        action.ended_at = now
        action.words = f"not known whether it was done, and not tried again: {approval.reason}"
    if action.work_item_id is not None and action.set_id is not None:
        enqueue(session, action.tenant_id, OutboxKind.SIGNAL_WORK_ITEM, {"work_item_id": str(action.work_item_id)})
    session.add(action)
    audit.record(
        session,
        principal,
        kind="effect.again" if again else "effect.left",
        subject=f"action/{action.id}",
        summary=action.words[0].upper() + action.words[1:],
        work_item_id=action.work_item_id,
        data={"approval_id": str(approval.id), "digest": action.digest},
    )
    await session.flush()
