"""Each step of a workflow is done once: its `op_id` is written in the step's own transaction, with the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

Answer = TypeVar("Answer", bound=BaseModel)


async def once(
    session: AsyncSession,
    tenant_id: UUID,
    op_id: str,
    answer_type: type[Answer],
    compute: Callable[[], Awaitable[Answer]],
) -> Answer:
    """Do `compute` unless `op_id` was done, and answer what the first try answered.

    Two tries at once: the second waits on the first's row until that transaction ends, then reads its answer (or, if
    it rolled back, computes).
    """
    connection = await session.connection()
    key = {"tenant": tenant_id, "op": op_id}
    is_first = await connection.scalar(
        text(
            "insert into operations (tenant_id, op_id) values (:tenant, :op) on conflict do nothing returning true"
        ),
        key,
    )
    if not is_first:
        known = await connection.scalar(
            text("select answer from operations where tenant_id = :tenant and op_id = :op"), key
        )
        return answer_type.model_validate(known)
    answer = await compute()
    await session.flush()
    await connection.execute(
        text(
            "update operations set answer = cast(:answer as jsonb) where tenant_id = :tenant and op_id = :op"
        ),
        {**key, "answer": answer.model_dump_json()},
    )
    return answer


async def at_most_every(session: AsyncSession, tenant_id: UUID, op_id: str, seconds: int) -> bool:
    """Whether `op_id` may be done again: the first time, and each time that it was not for so long. One row in all."""
    connection = await session.connection()
    return bool(
        await connection.scalar(
            text(
                "insert into operations (tenant_id, op_id, created_at) values (:tenant, :op, clock_timestamp())"
                " on conflict (tenant_id, op_id) do update set created_at = clock_timestamp()"
                " where operations.created_at <= clock_timestamp() - make_interval(secs => :seconds) returning true"
            ),
            {"tenant": tenant_id, "op": op_id, "seconds": seconds},
        )
    )
