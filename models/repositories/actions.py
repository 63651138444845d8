"""Queries over actions. INVARIANT: whoever changes an action of a work item has locked the item before."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import func, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.actions import ActionRow


async def get(session: AsyncSession, action_id: UUID) -> ActionRow | None:
    """One action, of any tenant that the session sees."""
    statement = select(ActionRow).where(col(ActionRow.id) == action_id).execution_options(populate_existing=True)
    return (await session.exec(statement)).one_or_none()


async def lock(session: AsyncSession, action_id: UUID) -> ActionRow | None:
    """One action of the session's own tenant, locked until the transaction's end."""
    statement = (
        select(ActionRow)
        .where(col(ActionRow.id) == action_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def by_key(session: AsyncSession, tenant_id: UUID, assistant_id: UUID, key: str) -> ActionRow | None:
    """The action that an assistant asked for under an idempotency key."""
    statement = (
        select(ActionRow)
        .where(
            col(ActionRow.tenant_id) == tenant_id,
            col(ActionRow.assistant_id) == assistant_id,
            col(ActionRow.idempotency_key) == key,
        )
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def one_at_a_time(session: AsyncSession, tenant_id: UUID, assistant_id: UUID) -> None:
    """Let the requests of an assistant that runs elsewhere come one after the other, to the transaction's end."""
    connection = await session.connection()
    await connection.execute(
        text("select pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"actions/{tenant_id}/{assistant_id}"}
    )


async def insert_if_new(session: AsyncSession, row: ActionRow) -> bool:
    """Insert unless the assistant's key is taken; waits for a transaction that is just taking it."""
    values = row.model_dump(exclude={"created_at", "updated_at"})
    statement = (
        insert(ActionRow)
        .values(**values)
        .on_conflict_do_nothing(index_elements=["tenant_id", "assistant_id", "idempotency_key"])
        .returning(col(ActionRow.id))
    )
    connection = await session.connection()
    return (await connection.execute(statement)).scalar() is not None


async def counts(
    session: AsyncSession, tenant_id: UUID, assistant_id: UUID, work_item_id: UUID | None
) -> tuple[int, int]:
    """How many actions the item has, and how many of the last minute; elsewhere: 0, and the assistant's."""
    connection = await session.connection()
    found = await connection.execute(
        text(
            "select count(*) filter (where work_item_id is not null) as of_item,"
            " count(*) filter (where created_at > clock_timestamp() - interval '1 minute') as in_minute from actions"
            " where tenant_id = :tenant and assistant_id = :assistant"
            " and work_item_id is not distinct from cast(:item as uuid)"
            " and (work_item_id is not null or created_at > clock_timestamp() - interval '1 minute')"
        ),
        {"tenant": tenant_id, "assistant": assistant_id, "item": work_item_id},
    )
    row = found.one()
    return row.of_item, row.in_minute


async def standing_denial(
    session: AsyncSession,
    tenant_id: UUID,
    assistant_id: UUID,
    work_item_id: UUID | None,
    class_digest: str,
    for_seconds: int,
) -> ActionRow | None:
    """The newest denial of this class: within the work item, or of an agent elsewhere within `for_seconds`."""
    statement = (
        select(ActionRow)
        .where(
            col(ActionRow.tenant_id) == tenant_id,
            col(ActionRow.assistant_id) == assistant_id,
            col(ActionRow.class_digest) == class_digest,
            col(ActionRow.status) == "denied",
        )
        .order_by(col(ActionRow.id).desc())
        .limit(1)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if work_item_id is not None:
        statement = statement.where(col(ActionRow.work_item_id) == work_item_id)
    else:
        lately = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, for_seconds)
        statement = statement.where(col(ActionRow.work_item_id).is_(None), col(ActionRow.decided_at) > lately)
    return (await session.exec(statement)).one_or_none()


async def of_item(session: AsyncSession, work_item_id: UUID, limit: int = 1000) -> list[ActionRow]:
    """The actions of an item, in the order in which they were asked for."""
    statement = (
        select(ActionRow)
        .where(col(ActionRow.work_item_id) == work_item_id)
        .order_by(col(ActionRow.id))
        .limit(limit)
        .execution_options(populate_existing=True)
    )
    return list((await session.exec(statement)).all())


async def of_set(session: AsyncSession, tenant_id: UUID, set_id: UUID) -> list[ActionRow]:
    """The actions of a staged set, in the order in which they are committed."""
    statement = (
        select(ActionRow)
        .where(col(ActionRow.tenant_id) == tenant_id, col(ActionRow.set_id) == set_id)
        .order_by(col(ActionRow.position))
        .execution_options(populate_existing=True)
    )
    return list((await session.exec(statement)).all())


async def page(
    session: AsyncSession, assistant_id: UUID | None, status: str | None, after: UUID | None, limit: int
) -> list[ActionRow]:
    """Actions that the session sees, newest first."""
    statement = select(ActionRow).order_by(col(ActionRow.id).desc()).limit(limit)
    for column, value in ((col(ActionRow.assistant_id), assistant_id), (col(ActionRow.status), status)):
        if value is not None:
            statement = statement.where(column == value)
    if after is not None:
        statement = statement.where(col(ActionRow.id) < after)
    return list((await session.exec(statement)).all())


async def pending_of_item(session: AsyncSession, tenant_id: UUID, work_item_id: UUID) -> int:
    """How many of the item's actions wait for people."""
    statement = (
        select(func.count())
        .select_from(ActionRow)
        .where(
            col(ActionRow.tenant_id) == tenant_id,
            col(ActionRow.work_item_id) == work_item_id,
            col(ActionRow.status) == "pending",
        )
    )
    return (await session.exec(statement)).one()


async def lock_unended(session: AsyncSession, tenant_id: UUID, work_item_id: UUID) -> list[ActionRow]:
    """The item's actions that have not ended, locked in the order of their ids."""
    statement = (
        select(ActionRow)
        .where(
            col(ActionRow.tenant_id) == tenant_id,
            col(ActionRow.work_item_id) == work_item_id,
            col(ActionRow.ended_at).is_(None),
        )
        .order_by(col(ActionRow.id))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return list((await session.exec(statement)).all())
