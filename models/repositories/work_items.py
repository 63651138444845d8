"""Queries over work items, their files, assessments and what hangs on them when they end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.work_item import WorkItemStatus
from models.tables.execution import RunRow, WarrantRow
from models.tables.tenancy import AssistantRow, PrincipalRow, WebhookRow
from models.tables.work import ApprovalRow, RiskAssessmentRow, WorkItemFileRow, WorkItemRow

AWAITING = {
    "approval": WorkItemStatus.AWAITING_APPROVAL,
    "budget": WorkItemStatus.AWAITING_BUDGET,
    "action": WorkItemStatus.AWAITING_ACTION,
}
"""What an item can wait for, as the list's filter names it."""


@dataclass(frozen=True)
class Filter:
    """Which items a list shows; None shows all."""

    status: str | None = None
    assistant_id: UUID | None = None
    level: str | None = None
    requester_id: UUID | None = None
    awaiting: str | None = None
    tenant_id: UUID | None = None


async def get(session: AsyncSession, work_item_id: UUID) -> WorkItemRow | None:
    """One item, of any tenant that the session sees."""
    statement = select(WorkItemRow).where(col(WorkItemRow.id) == work_item_id).execution_options(populate_existing=True)
    return (await session.exec(statement)).one_or_none()


async def lock(session: AsyncSession, work_item_id: UUID) -> WorkItemRow | None:
    """One item of the session's own tenant, locked until the transaction's end.

    Its key never changes, so rows that name it (events, files, charges) may be written meanwhile.
    """
    statement = (
        select(WorkItemRow)
        .where(col(WorkItemRow.id) == work_item_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def by_key(session: AsyncSession, tenant_id: UUID, requester_id: UUID, key: str) -> WorkItemRow | None:
    """The item that a requester made under an idempotency key."""
    statement = select(WorkItemRow).where(
        col(WorkItemRow.tenant_id) == tenant_id,
        col(WorkItemRow.requester_id) == requester_id,
        col(WorkItemRow.idempotency_key) == key,
    )
    return (await session.exec(statement)).one_or_none()


async def insert_if_new(session: AsyncSession, row: WorkItemRow) -> bool:
    """Insert unless the requester's key is taken; waits for a transaction that is just taking it."""
    values = row.model_dump(exclude={"created_at", "updated_at"})
    statement = (
        insert(WorkItemRow)
        .values(**values)
        .on_conflict_do_nothing(index_elements=["tenant_id", "requester_id", "idempotency_key"])
        .returning(col(WorkItemRow.id))
    )
    connection = await session.connection()
    return (await connection.execute(statement)).scalar() is not None


async def page(session: AsyncSession, wanted: Filter, after: UUID | None, limit: int) -> list[WorkItemRow]:
    """Items that the session sees, newest first."""
    statement = select(WorkItemRow).order_by(col(WorkItemRow.id).desc()).limit(limit)
    status = AWAITING[wanted.awaiting] if wanted.awaiting else wanted.status
    for column, value in (
        (col(WorkItemRow.status), status),
        (col(WorkItemRow.assistant_id), wanted.assistant_id),
        (col(WorkItemRow.risk_level), wanted.level),
        (col(WorkItemRow.requester_id), wanted.requester_id),
        (col(WorkItemRow.tenant_id), wanted.tenant_id),
    ):
        if value is not None:
            statement = statement.where(column == value)
    if after is not None:
        statement = statement.where(col(WorkItemRow.id) < after)
    return list((await session.exec(statement)).all())


async def files(session: AsyncSession, work_item_id: UUID, direction: str | None = None) -> list[WorkItemFileRow]:
    """The item's files, in the order of their paths."""
    statement = select(WorkItemFileRow).where(col(WorkItemFileRow.work_item_id) == work_item_id)
    if direction is not None:
        statement = statement.where(col(WorkItemFileRow.direction) == direction)
    statement = statement.order_by(col(WorkItemFileRow.direction), col(WorkItemFileRow.path))
    return list((await session.exec(statement)).all())


async def latest_assessment(session: AsyncSession, work_item_id: UUID) -> RiskAssessmentRow | None:
    """The item's own newest assessment; those of its actions are others."""
    statement = (
        select(RiskAssessmentRow)
        .where(
            col(RiskAssessmentRow.work_item_id) == work_item_id,
            col(RiskAssessmentRow.action_id).is_(None),
            col(RiskAssessmentRow.action_set_id).is_(None),
        )
        .order_by(col(RiskAssessmentRow.id).desc())
        .limit(1)
    )
    return (await session.exec(statement)).one_or_none()


async def latest_run(session: AsyncSession, work_item_id: UUID) -> RunRow | None:
    """The item's run (one an item; the newest if there ever were more)."""
    statement = (
        select(RunRow)
        .where(col(RunRow.work_item_id) == work_item_id)
        .order_by(col(RunRow.id).desc())
        .limit(1)
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def lock_open_run(session: AsyncSession, work_item_id: UUID) -> RunRow | None:
    """The item's run that is not ended, locked until the transaction's end."""
    statement = (
        select(RunRow)
        .where(col(RunRow.work_item_id) == work_item_id, col(RunRow.status) != "ended")
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def live_runs_before(
    session: AsyncSession, tenant_id: UUID, scope: str, epoch: int, assistant_id: UUID | None
) -> Sequence[RunRow]:
    """A tenant's live runs (of one assistant, or all) under warrants from before a halt's epoch, locked by id."""
    newer = (
        select(WarrantRow.id)
        .where(
            col(WarrantRow.tenant_id) == col(RunRow.tenant_id),
            col(WarrantRow.id) == col(RunRow.warrant_id),
            col(WarrantRow.claims)["epochs"][scope].as_integer() >= epoch,
        )
        .exists()
    )
    statement = select(RunRow).where(
        col(RunRow.tenant_id) == tenant_id, col(RunRow.status).in_(["claimed", "running"]), ~newer
    )
    if assistant_id is not None:
        items = select(WorkItemRow.id).where(
            col(WorkItemRow.tenant_id) == tenant_id, col(WorkItemRow.assistant_id) == assistant_id
        )
        statement = statement.where(col(RunRow.work_item_id).in_(items))
    statement = statement.order_by(col(RunRow.id)).with_for_update().execution_options(populate_existing=True)
    return (await session.exec(statement)).all()


async def people_of(session: AsyncSession, item: WorkItemRow) -> tuple[AssistantRow, PrincipalRow]:
    """The item's assistant and its requester."""
    statement = (
        select(AssistantRow, PrincipalRow)
        .where(col(AssistantRow.tenant_id) == item.tenant_id, col(AssistantRow.id) == item.assistant_id)
        .where(col(PrincipalRow.tenant_id) == col(AssistantRow.tenant_id), col(PrincipalRow.id) == item.requester_id)
    )
    return (await session.exec(statement)).one()


async def count_rejected(session: AsyncSession, tenant_id: UUID, assistant_id: UUID) -> int:
    """How often people said no to an assistant's work."""
    statement = (
        select(func.count())
        .select_from(WorkItemRow)
        .where(
            col(WorkItemRow.tenant_id) == tenant_id,
            col(WorkItemRow.assistant_id) == assistant_id,
            col(WorkItemRow.status) == WorkItemStatus.REJECTED.value,
        )
    )
    return (await session.exec(statement)).one()


async def has_approval(session: AsyncSession, item: WorkItemRow) -> bool:
    """Whether an approval of exactly this spec stands."""
    statement = (
        select(ApprovalRow.id)
        .where(
            col(ApprovalRow.tenant_id) == item.tenant_id,
            col(ApprovalRow.work_item_id) == item.id,
            col(ApprovalRow.subject_digest) == item.spec_digest,
            col(ApprovalRow.action_id).is_(None),
            col(ApprovalRow.action_set_id).is_(None),
            col(ApprovalRow.status) == "approved",
        )
        .limit(1)
    )
    return (await session.exec(statement)).one_or_none() is not None


async def revoke_warrants(session: AsyncSession, tenant_id: UUID, work_item_id: UUID) -> int:
    """Revoke the item's warrants that nobody has claimed; answers how many."""
    connection = await session.connection()
    result = await connection.execute(
        text(
            "update warrants set revoked_at = clock_timestamp() where tenant_id = :tenant and work_item_id = :item"
            " and revoked_at is null and claimed_at is null"
        ),
        {"tenant": tenant_id, "item": work_item_id},
    )
    return result.rowcount


async def webhooks_for(session: AsyncSession, tenant_id: UUID, event: str) -> list[WebhookRow]:
    """Enabled webhooks that want `event` (an empty list of events wants all)."""
    statement = select(WebhookRow).where(col(WebhookRow.tenant_id) == tenant_id, col(WebhookRow.enabled).is_(True))
    hooks = (await session.exec(statement)).all()
    return [hook for hook in hooks if not hook.events or event in hook.events]
