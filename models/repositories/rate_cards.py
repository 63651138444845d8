"""Queries over rate cards: global rows, read by all, written through the definer function `add_rate_card` alone."""

from __future__ import annotations

from sqlalchemy import func, literal_column
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.llm import RateCardRow

IN_FORCE_AND_LATER = """
    SELECT model, version, effective_from, card, source, effective_from <= now() AS in_force FROM rate_cards AS each
    WHERE effective_from > now() OR version = (
        SELECT max(version) FROM rate_cards AS other WHERE other.model = each.model AND other.effective_from <= now())
    ORDER BY model, version"""
COUNT = "SELECT count(*) FROM rate_cards"
NEWEST = """
    SELECT DISTINCT ON (model) model, digest, source FROM rate_cards ORDER BY model, version DESC"""
# In the order of their names, so that two writers never wait for each other's locks in a circle.
ADD = """
    SELECT count(add_rate_card(model, since, card, digest, source)) AS added FROM (
        SELECT * FROM jsonb_to_recordset(CAST(:cards AS jsonb))
            AS new(model text, since timestamptz, card jsonb, digest text, source text)
        ORDER BY model) AS new"""


async def page(session: AsyncSession, after: str | None, containing: str, limit: int) -> list[RateCardRow]:
    """Versions in force, in the order of their models' names; those alone whose name contains a text."""
    # One order everywhere, whatever the database's collation is: a cursor is a place in it.
    name = col(RateCardRow.model).collate("C")
    newest = (
        select(col(RateCardRow.model), func.max(col(RateCardRow.version)).label("version"))
        .where(col(RateCardRow.effective_from) <= literal_column("now()"))
        .group_by(col(RateCardRow.model))
        .subquery()
    )
    statement = (
        select(RateCardRow)
        .join(newest, (newest.c.model == col(RateCardRow.model)) & (newest.c.version == col(RateCardRow.version)))
        .order_by(name)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(name > after)
    if containing:
        statement = statement.where(func.strpos(func.lower(col(RateCardRow.model)), containing.lower()) > 0)
    return list((await session.exec(statement)).all())


async def versions(session: AsyncSession, model: str, limit: int) -> list[RateCardRow]:
    """A model's versions, newest first, those of the future too."""
    statement = (
        select(RateCardRow)
        .where(col(RateCardRow.model) == model)
        .order_by(col(RateCardRow.version).desc())
        .limit(limit)
    )
    return list((await session.exec(statement)).all())
