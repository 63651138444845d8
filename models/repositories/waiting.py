"""Queries over runs whose agents wait for people."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.actions import ActionRow, RunStateRow

# An agent waits from its oldest open question of mode `wait` on: whatever it asked later, it is still blocked by that.
_WAITED = (
    "(select extract(epoch from clock_timestamp() - min(a.created_at)) from actions a"
    " where a.tenant_id = r.tenant_id and a.run_id = r.id and a.attempt = r.attempt"
    " and a.mode = 'wait' and a.status = 'pending')"
)


async def live(session: AsyncSession, tenant_id: UUID) -> list[Row[Any]]:
    """The tenant's live runs that wait, or are said to; what is to be killed is left alone.

    Each is (id, attempt, waiting, work_item_id, policy_version_id, waited).
    """
    connection = await session.connection()
    found = await connection.execute(
        text(
            "select * from (select r.id, r.attempt, r.waiting, r.work_item_id, i.policy_version_id,"  # noqa: S608 - a constant
            f" {_WAITED} as waited from runs r"
            " join work_items i on i.tenant_id = r.tenant_id and i.id = r.work_item_id"
            " where r.tenant_id = :tenant and r.status = 'running' and r.kill_reason is null"
            " and i.cancel_requested_at is null) as found where waiting is not null or waited is not null"
        ),
        {"tenant": tenant_id},
    )
    return list(found)


async def waited(session: AsyncSession, tenant_id: UUID, run_id: UUID) -> float | None:
    """For how many seconds the run's agent has done nothing but wait; None: it waits for nobody."""
    connection = await session.connection()
    found = await connection.scalar(
        text(f"select {_WAITED} from runs r where r.tenant_id = :tenant and r.id = :run"),  # noqa: S608 - a constant
        {"tenant": tenant_id, "run": run_id},
    )
    return None if found is None else float(found)


async def answers(session: AsyncSession, tenant_id: UUID, run_id: UUID) -> list[ActionRow]:
    """All that the run has asked leave for, in the order in which it asked."""
    statement = (
        select(ActionRow)
        .where(col(ActionRow.tenant_id) == tenant_id, col(ActionRow.run_id) == run_id)
        .order_by(col(ActionRow.id))
        .execution_options(populate_existing=True)
    )
    return list((await session.exec(statement)).all())


async def saved_state(session: AsyncSession, tenant_id: UUID, run_id: UUID) -> RunStateRow | None:
    """What the run's agent saved for its next attempt."""
    statement = select(RunStateRow).where(col(RunStateRow.tenant_id) == tenant_id, col(RunStateRow.run_id) == run_id)
    return (await session.exec(statement)).one_or_none()
