"""Queries over what a work item has cost: charges at its settlement, and the ledger of model calls."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import func, text, tuple_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.llm import LlmChargeRow
from models.tables.money import ChargeRow


async def charged_by_kind(session: AsyncSession, work_item_id: UUID) -> dict[str, int]:
    """Nano-USD that were charged to the item, by the charge's kind."""
    statement = (
        select(col(ChargeRow.kind), func.sum(col(ChargeRow.amount_nano)))
        .where(col(ChargeRow.work_item_id) == work_item_id)
        .group_by(col(ChargeRow.kind))
    )
    return {kind: int(amount) for kind, amount in (await session.exec(statement)).all()}


async def calls(session: AsyncSession, work_item_id: UUID) -> tuple[int, int, int]:
    """How many model calls stand in the ledger, their nano-USD, and how many of those are estimated."""
    statement = select(
        func.count(), func.coalesce(func.sum(col(LlmChargeRow.amount_nano)), 0),
        func.count().filter(col(LlmChargeRow.kind) != "final"),
    ).where(col(LlmChargeRow.work_item_id) == work_item_id)  # fmt: skip
    count, amount, estimated = (await session.exec(statement)).one()
    return int(count), int(amount), int(estimated)


async def tokens(session: AsyncSession, work_item_id: UUID) -> dict[str, int]:
    """The tokens of the item's model calls, by class."""
    connection = await session.connection()
    found = await connection.execute(
        text(
            "select key, sum(value::numeric)::bigint from llm_charges, jsonb_each(tokens)"
            " where work_item_id = :item and jsonb_typeof(value) = 'number' group by key order by key"
        ),
        {"item": work_item_id},
    )
    return {key: int(count) for key, count in found}


async def page(
    session: AsyncSession, work_item_id: UUID, after: tuple[UUID, int] | None, limit: int
) -> list[LlmChargeRow]:
    """The item's calls in the order of their ids, which is that of their beginnings."""
    key = tuple_(col(LlmChargeRow.call_id), col(LlmChargeRow.attempt))
    statement = select(LlmChargeRow).where(col(LlmChargeRow.work_item_id) == work_item_id)
    if after is not None:
        statement = statement.where(key > after)
    statement = statement.order_by(col(LlmChargeRow.call_id), col(LlmChargeRow.attempt)).limit(limit)
    return list((await session.exec(statement)).all())
