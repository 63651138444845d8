"""Queries over the durable chunks of runs' output."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import and_, or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.tables.execution import LogChunkRow


async def after(session: AsyncSession, run_id: UUID, attempt: int, offset: int, limit: int = 16) -> list[LogChunkRow]:
    """Chunks with bytes at or beyond (attempt, offset), in order."""
    statement = (
        select(LogChunkRow)
        .where(
            col(LogChunkRow.run_id) == run_id,
            or_(
                col(LogChunkRow.attempt) > attempt,
                and_(col(LogChunkRow.attempt) == attempt, col(LogChunkRow.end_offset) > offset),
            ),
        )
        .order_by(col(LogChunkRow.attempt), col(LogChunkRow.start_offset))
        .limit(limit)
    )
    return list((await session.exec(statement)).all())
