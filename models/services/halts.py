"""Reading halts: the epochs a warrant is bound to, and whether one is in force."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession


class Epochs(BaseModel):
    """How often each halt that applies was raised; a warrant fails when one of its own rose."""

    model_config = ConfigDict(frozen=True)

    everything: int = 0
    tenant: int = 0
    assistant: int = 0


class HaltView(BaseModel):
    """A halt in force."""

    model_config = ConfigDict(frozen=True)

    scope: str
    mode: str
    reason: str


_KEYS = "(scope, key) in (('everything', 'everything'), ('tenant', :tenant), ('assistant', :assistant))"


def _keys(tenant_id: UUID, assistant_id: UUID) -> dict[str, str]:
    return {"tenant": str(tenant_id), "assistant": f"{tenant_id}/{assistant_id}"}


async def epochs(session: AsyncSession, tenant_id: UUID, assistant_id: UUID) -> Epochs:
    """The three epochs that apply to work of this assistant."""
    connection = await session.connection()
    rows = await connection.execute(
        text(f"select scope, epoch from halts where {_KEYS}"), _keys(tenant_id, assistant_id)
    )
    return Epochs(**{row.scope: row.epoch for row in rows})


async def active_halt(session: AsyncSession, tenant_id: UUID, assistant_id: UUID) -> HaltView | None:
    """The widest halt in force for work of this assistant, if any."""
    connection = await session.connection()
    row = (
        await connection.execute(
            text(
                f"select scope, mode, reason from halts where active and {_KEYS}"
                " order by case scope when 'everything' then 0 when 'tenant' then 1 else 2 end limit 1"
            ),
            _keys(tenant_id, assistant_id),
        )
    ).one_or_none()
    return None if row is None else HaltView(scope=row.scope, mode=row.mode, reason=row.reason)
