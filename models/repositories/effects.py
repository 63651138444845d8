"""Queries over effects: the tries, and what people said of an action. The item is locked before, then the action."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.storage.db import Database
from models.tables.actions import ActionSetRow, EffectAttemptRow
from models.tables.execution import WarrantRow
from models.tables.work import ApprovalRow, RiskAssessmentRow


async def tries(session: AsyncSession, tenant_id: UUID, action_id: UUID) -> list[EffectAttemptRow]:
    """The tries of an action, in their order."""
    statement = (
        select(EffectAttemptRow)
        .where(col(EffectAttemptRow.tenant_id) == tenant_id, col(EffectAttemptRow.action_id) == action_id)
        .order_by(col(EffectAttemptRow.attempt))
        .execution_options(populate_existing=True)
    )
    return list((await session.exec(statement)).all())


async def lock_live_warrant(session: AsyncSession, tenant_id: UUID, action_id: UUID) -> WarrantRow | None:
    """The action's warrant that is neither claimed nor revoked, locked until the transaction's end."""
    statement = (
        select(WarrantRow)
        .where(
            col(WarrantRow.tenant_id) == tenant_id,
            col(WarrantRow.action_id) == action_id,
            col(WarrantRow.claimed_at).is_(None),
            col(WarrantRow.revoked_at).is_(None),
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def approvals_of_action(session: AsyncSession, tenant_id: UUID, action_id: UUID) -> list[ApprovalRow]:
    """Every question that was asked about an action, oldest first."""
    statement = (
        select(ApprovalRow)
        .where(col(ApprovalRow.tenant_id) == tenant_id, col(ApprovalRow.action_id) == action_id)
        .order_by(col(ApprovalRow.id))
        .execution_options(populate_existing=True)
    )
    return list((await session.exec(statement)).all())


async def approvals_of_set(session: AsyncSession, tenant_id: UUID, set_id: UUID) -> list[ApprovalRow]:
    """Every question that was asked about a staged set, oldest first."""
    statement = (
        select(ApprovalRow)
        .where(col(ApprovalRow.tenant_id) == tenant_id, col(ApprovalRow.action_set_id) == set_id)
        .order_by(col(ApprovalRow.id))
        .execution_options(populate_existing=True)
    )
    return list((await session.exec(statement)).all())


async def assessments(session: AsyncSession, tenant_id: UUID, action_id: UUID) -> list[RiskAssessmentRow]:
    """How an action was assessed: when it was asked for, and at each edit."""
    statement = (
        select(RiskAssessmentRow)
        .where(col(RiskAssessmentRow.tenant_id) == tenant_id, col(RiskAssessmentRow.action_id) == action_id)
        .order_by(col(RiskAssessmentRow.id))
    )
    return list((await session.exec(statement)).all())


async def lock_set(session: AsyncSession, tenant_id: UUID, set_id: UUID) -> ActionSetRow | None:
    """A staged set, locked until the transaction's end. Its item is locked before."""
    statement = (
        select(ActionSetRow)
        .where(col(ActionSetRow.tenant_id) == tenant_id, col(ActionSetRow.id) == set_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def set_of_item(session: AsyncSession, tenant_id: UUID, work_item_id: UUID) -> ActionSetRow | None:
    """The newest staged set of an item."""
    statement = (
        select(ActionSetRow)
        .where(col(ActionSetRow.tenant_id) == tenant_id, col(ActionSetRow.work_item_id) == work_item_id)
        .order_by(col(ActionSetRow.id).desc())
        .limit(1)
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


@dataclass(frozen=True)
class FoundEffect:
    """An action whose effect is not done with."""

    tenant_id: UUID
    id: UUID
    status: str


async def open_effects(system: Database, after: UUID | None, limit: int) -> list[FoundEffect]:
    """A page of actions whose effect is to be performed or is under way, for some seconds, in the order of their ids.

    Read by the finding role, outside any tenant. Members of a staged set are begun by their item's workflow; one that
    is under way is found like any other.
    """
    found = await system.rows(
        """select tenant_id, id, status from actions
            where ended_at is null and effect is not null and status in ('permitted', 'edited', 'performing')
              and updated_at < clock_timestamp() - interval '15 s'
              and (cast(:after as uuid) is null or id > :after) order by id limit :limit""",
        after=after,
        limit=limit,
    )
    return [FoundEffect(**row) for row in found]


async def permitted_effects(system: Database, tenant_id: UUID | None, assistant_id: UUID | None) -> list[FoundEffect]:
    """Actions that a halt held back, of everything, a tenant or an assistant."""
    found = await system.rows(
        """select tenant_id, id, status from actions
            where ended_at is null and effect is not null and status in ('permitted', 'edited', 'performing')
              and (cast(:tenant as uuid) is null or tenant_id = :tenant)
              and (cast(:assistant as uuid) is null or assistant_id = :assistant) order by id limit 10000""",
        tenant=tenant_id,
        assistant=assistant_id,
    )
    return [FoundEffect(**row) for row in found]
