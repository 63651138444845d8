"""Queries over what agents leave with us beside their actions: keys, questions, saved state, files."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import func, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.actions import AssistantKeyRow, QuestionRow, RunStateRow
from models.tables.llm import LlmChargeRow
from models.tables.work import WorkItemFileRow


async def key_by_hash(session: AsyncSession, key_hash: str) -> AssistantKeyRow | None:
    """The assistant's key of this hash, in the session's own tenant."""
    return (await session.exec(select(AssistantKeyRow).where(col(AssistantKeyRow.key_hash) == key_hash))).one_or_none()


async def keys_of(session: AsyncSession, tenant_id: UUID, assistant_id: UUID) -> list[AssistantKeyRow]:
    """An assistant's keys, newest first."""
    statement = (
        select(AssistantKeyRow)
        .where(col(AssistantKeyRow.tenant_id) == tenant_id, col(AssistantKeyRow.assistant_id) == assistant_id)
        .order_by(col(AssistantKeyRow.id).desc())
        .execution_options(populate_existing=True)
    )
    return list((await session.exec(statement)).all())


async def lock_key(session: AsyncSession, tenant_id: UUID, assistant_id: UUID, key_id: UUID) -> AssistantKeyRow | None:
    """One of an assistant's keys, locked until the transaction's end."""
    statement = (
        select(AssistantKeyRow)
        .where(
            col(AssistantKeyRow.tenant_id) == tenant_id,
            col(AssistantKeyRow.assistant_id) == assistant_id,
            col(AssistantKeyRow.id) == key_id,
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def question(session: AsyncSession, work_item_id: UUID, question_id: UUID) -> QuestionRow | None:
    """One question of an item, of any tenant that the session sees."""
    statement = (
        select(QuestionRow)
        .where(col(QuestionRow.work_item_id) == work_item_id, col(QuestionRow.id) == question_id)
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def question_by_key(session: AsyncSession, tenant_id: UUID, work_item_id: UUID, key: str) -> QuestionRow | None:
    """The question that an item's agent asked under an idempotency key."""
    statement = select(QuestionRow).where(
        col(QuestionRow.tenant_id) == tenant_id,
        col(QuestionRow.work_item_id) == work_item_id,
        col(QuestionRow.idempotency_key) == key,
    )
    return (await session.exec(statement)).one_or_none()


async def questions_of(session: AsyncSession, work_item_id: UUID) -> list[QuestionRow]:
    """An item's questions, in the order in which they were asked."""
    statement = (
        select(QuestionRow)
        .where(col(QuestionRow.work_item_id) == work_item_id)
        .order_by(col(QuestionRow.id))
        .execution_options(populate_existing=True)
    )
    return list((await session.exec(statement)).all())


async def save_state(session: AsyncSession, row: RunStateRow) -> bool:
    """Keep what an agent saved; False when a later attempt has saved already."""
    connection = await session.connection()
    found = await connection.scalar(
        text(
            "insert into run_states (tenant_id, run_id, sha256, size, attempt, updated_at)"
            " values (:tenant, :run, :sha256, :size, :attempt, clock_timestamp())"
            " on conflict (tenant_id, run_id) do update set sha256 = excluded.sha256, size = excluded.size,"
            " attempt = excluded.attempt, saves = run_states.saves + 1, updated_at = excluded.updated_at"
            " where run_states.attempt <= excluded.attempt returning true"
        ),
        {
            "tenant": row.tenant_id,
            "run": row.run_id,
            "sha256": row.sha256,
            "size": row.size,
            "attempt": row.attempt,
        },
    )
    return bool(found)


async def state_of(session: AsyncSession, tenant_id: UUID, run_id: UUID) -> RunStateRow | None:
    """What an agent saved."""
    statement = select(RunStateRow).where(col(RunStateRow.tenant_id) == tenant_id, col(RunStateRow.run_id) == run_id)
    return (await session.exec(statement)).one_or_none()


async def put_file(session: AsyncSession, row: WorkItemFileRow) -> None:
    """Name a content as an item's file; the same path again names the new one."""
    connection = await session.connection()
    values = row.model_dump(exclude={"created_at"})
    statement = insert(WorkItemFileRow).values(**values)
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["tenant_id", "work_item_id", "direction", "path"],
            set_={"sha256": statement.excluded.sha256, "size": statement.excluded.size},
        )
    )


async def spent_on_models(session: AsyncSession, tenant_id: UUID, work_item_id: UUID) -> int:
    """What an item's model calls were charged so far, in nano-USD."""
    statement = select(func.coalesce(func.sum(col(LlmChargeRow.amount_nano)), 0)).where(
        col(LlmChargeRow.tenant_id) == tenant_id, col(LlmChargeRow.work_item_id) == work_item_id
    )
    return int((await session.exec(statement)).one())
