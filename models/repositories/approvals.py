"""Queries over approvals and decisions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import select as sa_select
from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.tenancy import AssistantRow, PrincipalRow, TenantRow
from models.tables.work import ApprovalRow, DecisionRow, RiskAssessmentRow, WorkItemRow

Whole = tuple[ApprovalRow, WorkItemRow, AssistantRow, PrincipalRow, RiskAssessmentRow, TenantRow]
"""An approval with its item, assistant, requester, assessment and company."""


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
        )
        .order_by(col(ApprovalRow.id).desc())
        .limit(1)
    )
    return (await session.exec(statement)).one_or_none()


async def cancel_open(session: AsyncSession, tenant_id: UUID, work_item_id: UUID, reason: str) -> list[UUID]:
    """Cancel the item's open approval; answers which it was (none or one)."""
    connection = await session.connection()
    found = await connection.execute(
        text(
            "update approvals set status = 'cancelled', reason = :reason, ended_at = clock_timestamp()"
            " where tenant_id = :tenant and work_item_id = :item and status = 'pending' returning id"
        ),
        {"tenant": tenant_id, "item": work_item_id, "reason": reason},
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
    return (
        sa_select(ApprovalRow, WorkItemRow, AssistantRow, PrincipalRow, RiskAssessmentRow, TenantRow)
        .where(col(WorkItemRow.tenant_id) == tenant_id, col(WorkItemRow.id) == col(ApprovalRow.work_item_id))
        .where(col(AssistantRow.tenant_id) == tenant_id, col(AssistantRow.id) == col(WorkItemRow.assistant_id))
        .where(col(PrincipalRow.tenant_id) == tenant_id, col(PrincipalRow.id) == col(WorkItemRow.requester_id))
        .where(col(RiskAssessmentRow.tenant_id) == tenant_id)
        .where(col(RiskAssessmentRow.id) == col(ApprovalRow.assessment_id))
        .where(col(TenantRow.tenant_id) == tenant_id)
        .execution_options(populate_existing=True)
    )


async def whole(session: AsyncSession, approval_id: UUID) -> Whole | None:
    """An approval with all that a human needs to decide."""
    found = cast("list[Whole]", (await session.exec(_whole().where(col(ApprovalRow.id) == approval_id))).all())
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
    return cast("list[Whole]", (await session.exec(statement)).all())
