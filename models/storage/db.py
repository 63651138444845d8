"""The only way to a database session: bound to one tenant, closed to all others.

INVARIANT: a transaction starts by binding `app.current_tenant`; a session without a tenant raises before its first
statement. The setting is local to the transaction, so a pooled connection carries nothing to its next user.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID

from sqlalchemy import event, text
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import SessionTransaction
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.principal import Principal
from models.storage.audit_chain import seal_audit
from models.storage.event_order import write_events

CONNECT_TIMEOUT_SECONDS = 5
STATEMENT_TIMEOUT_MS = 15_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 60_000


class TenantSession(Session):
    """A session whose every transaction is bound to `info["tenant_id"]`."""


@event.listens_for(TenantSession, "after_begin")
def _bind_tenant(session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
    tenant_id = cast("UUID | None", session.info.get("tenant_id"))
    if tenant_id is None:
        raise RuntimeError("this session is bound to no tenant; take it from Database.session_for")
    connection.execute(text("select set_config('app.current_tenant', :tenant, true)"), {"tenant": str(tenant_id)})


class Database:
    """A pool of connections of one role, and the sessions over it."""

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        options = (
            f"-c statement_timeout={STATEMENT_TIMEOUT_MS}"
            f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_TIMEOUT_MS}"
        )
        # hide_parameters: an error's words go to logs and into Temporal's histories, and a statement's values are
        # warrants and people's data.
        # prepare_threshold None: prepared statements do not survive a pooler that shares connections by transaction.
        self.engine: AsyncEngine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=10,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_SECONDS,
                "options": options,
                "prepare_threshold": None,
            },
        )
        self._sessions = async_sessionmaker(
            self.engine, class_=AsyncSession, sync_session_class=TenantSession, expire_on_commit=False
        )

    @asynccontextmanager
    async def session_for(self, principal: Principal) -> AsyncGenerator[AsyncSession]:
        """One transaction in the principal's tenant: committed (audit sealed) at the end, rolled back on an error."""
        async with self.tenant_session(principal.tenant_id) as session:
            yield session

    @asynccontextmanager
    async def tenant_session(self, tenant_id: UUID) -> AsyncGenerator[AsyncSession]:
        """The same for a process that acts inside `tenant_id` after it has established its right to."""
        async with self._sessions(info={"tenant_id": tenant_id}) as session:
            try:
                yield session
                await write_events(session)
                await seal_audit(session)
                await session.commit()
            except BaseException:
                await session.rollback()
                raise

    async def ping(self) -> None:
        """Raise when the server does not answer."""
        async with self.engine.connect() as connection:
            await connection.execute(text("select 1"))

    async def call(self, statement: str, **parameters: Any) -> Any:
        """Scalar answer of a definer function that needs no tenant, such as `find_tenant`."""
        async with self.engine.connect() as connection:
            return (await connection.execute(text(statement), parameters)).scalar()

    async def rows(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        """Rows of a read by the finding role; only `awgp_system` sees rows outside a tenant."""
        async with self.engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(text(statement), parameters)).mappings()]

    async def change(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        """A committed statement of the finding role, and what it returns; the outbox is all that it may change."""
        async with self.engine.begin() as connection:
            result = await connection.execute(text(statement), parameters)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()
