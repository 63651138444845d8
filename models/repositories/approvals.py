"""Queries over approvals and decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import and_, func, text
from sqlalchemy import select as sa_select
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import again_digest
from models.tables.actions import ActionRow, ActionSetRow
from models.tables.tenancy import AssistantRow, PrincipalRow, TenantRow
from models.tables.work import ApprovalRow, DecisionRow, RiskAssessmentRow, WorkItemRow


@dataclass(frozen=True)
class Whole:
    """An approval with what it is about, and everybody concerned.

    Attributes:
        item: The work item that it is about, or in whose course it was asked; None for an agent that runs elsewhere.
        action: The one action that it is about.
        action_set: The staged set that it is about.
        requester: Who asked for the work item; else who owns the assistant, if anybody does.
    """

    approval: ApprovalRow
    assistant: AssistantRow
    assessment: RiskAssessmentRow
    tenant: TenantRow
    item: WorkItemRow | None
    action: ActionRow | None
    action_set: ActionSetRow | None
    requester: PrincipalRow | None

    @property
    def is_about_a_try(self) -> bool:
        """Whether it asks if a try, of which nobody knows whether it was done, may be followed by another."""
        action = self.action
        if action is None or action.warrant_id is None:
            return False
        return self.approval.subject_digest == again_digest(action.digest, action.warrant_id)

    @property
    def subject_now(self) -> str:
        """Digest of exactly what would run or be done, as the rows say now."""
        if self.is_about_a_try:
            return self.approval.subject_digest
        if self.action is not None:
            return self.action.digest
        if self.action_set is not None:
            return self.action_set.digest
        assert self.item is not None, "an approval is about an item, an action or a set"
        return self.item.spec_digest


async def get(session: AsyncSession, approval_id: UUID) -> ApprovalRow | None:
    """One approval, of any tenant that the session sees."""
    statement = select(ApprovalRow).where(col(ApprovalRow.id) == approval_id).execution_options(populate_existing=True)
    return (await session.exec(statement)).one_or_none()


async def lock(session: AsyncSession, approval_id: UUID) -> ApprovalRow | None:
    """One approval of the session's own tenant, locked until the transaction's end."""
    statement = (
        select(ApprovalRow)
        .where(col(ApprovalRow.id) == approval_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def newest_for(session: AsyncSession, tenant_id: UUID, work_item_id: UUID, digest: str) -> ApprovalRow | None:
    """The newest approval that was asked for exactly this spec."""
    statement = (
        select(ApprovalRow)
        .where(
            col(ApprovalRow.tenant_id) == tenant_id,
            col(ApprovalRow.work_item_id) == work_item_id,
            col(ApprovalRow.subject_digest) == digest,
            col(ApprovalRow.action_id).is_(None),
            col(ApprovalRow.action_set_id).is_(None),
        )
        .order_by(col(ApprovalRow.id).desc())
        .limit(1)
    )
    return (await session.exec(statement)).one_or_none()


async def cancel_open(
    session: AsyncSession, tenant_id: UUID, work_item_id: UUID, reason: str, *, sets: bool = True
) -> list[UUID]:
    """Cancel the item's open approvals, of its actions and (with `sets`) staged sets too; answers which they were."""
    connection = await session.connection()
    found = await connection.execute(
        text(
            "update approvals set status = 'cancelled', reason = :reason, ended_at = clock_timestamp()"
            " where tenant_id = :tenant and work_item_id = :item and status = 'pending'"
            # Whether an effect was done is to be answered also when the item is over.
            " and not exists (select 1 from actions c where c.tenant_id = approvals.tenant_id"
            " and c.id = approvals.action_id and c.status = 'unknown')"
            " and (:sets or action_set_id is null) returning id"
        ),
        {"tenant": tenant_id, "item": work_item_id, "reason": reason, "sets": sets},
    )
    return list(found.scalars())


async def decisions(session: AsyncSession, tenant_id: UUID, approval_ids: Sequence[UUID]) -> list[DecisionRow]:
    """The decisions on these approvals, in the order in which they were made."""
    statement = (
        select(DecisionRow)
        .where(col(DecisionRow.tenant_id) == tenant_id, col(DecisionRow.approval_id).in_(approval_ids))
        .order_by(col(DecisionRow.id))
        .execution_options(populate_existing=True)
    )
    return list((await session.exec(statement)).all())


def _whole() -> Any:
    # SQLModel's `select` is typed for four columns at most; the answer is typed again below.
    tenant_id = col(ApprovalRow.tenant_id)
    assistant_id = func.coalesce(col(WorkItemRow.assistant_id), col(ActionRow.assistant_id))
    requester_id = func.coalesce(col(WorkItemRow.requester_id), col(AssistantRow.owner_id))

    def joined(row: Any, row_id: Any) -> Any:
        return and_(col(row.tenant_id) == tenant_id, col(row.id) == row_id)

    return (
        sa_select(
            ApprovalRow, AssistantRow, RiskAssessmentRow, TenantRow, WorkItemRow, ActionRow, ActionSetRow, PrincipalRow
        )
        .join(TenantRow, col(TenantRow.tenant_id) == tenant_id)
        .join(RiskAssessmentRow, joined(RiskAssessmentRow, col(ApprovalRow.assessment_id)))
        .outerjoin(WorkItemRow, joined(WorkItemRow, col(ApprovalRow.work_item_id)))
        .outerjoin(ActionRow, joined(ActionRow, col(ApprovalRow.action_id)))
        .outerjoin(ActionSetRow, joined(ActionSetRow, col(ApprovalRow.action_set_id)))
        .join(AssistantRow, joined(AssistantRow, assistant_id))
        .outerjoin(PrincipalRow, joined(PrincipalRow, requester_id))
        .execution_options(populate_existing=True)
    )


async def whole(session: AsyncSession, approval_id: UUID) -> Whole | None:
    """An approval with all that a human needs to decide."""
    found = await _read(session, _whole().where(col(ApprovalRow.id) == approval_id))
    return found[0] if found else None


async def pending(session: AsyncSession, now: datetime, after: UUID | None, limit: int) -> list[Whole]:
    """Open approvals that the session sees and whose time has not passed, newest first."""
    statement = (
        _whole()
        .where(col(ApprovalRow.status) == "pending", col(ApprovalRow.expires_at) > now)
        .order_by(col(ApprovalRow.id).desc())
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(col(ApprovalRow.id) < after)
    return await _read(session, statement)


async def _read(session: AsyncSession, statement: Any) -> list[Whole]:
    return [Whole(*found) for found in cast("list[tuple[Any, ...]]", (await session.exec(statement)).all())]
