"""Tenants: read and listed; and the one way for a holding's people to act inside a subsidiary."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.errors import NotFound
from models.domain.principal import Principal
from models.repositories import tenants as rows
from models.storage.db import Database
from models.tables.tenancy import TenantRow


async def read(session: AsyncSession, principal: Principal, tenant_id: UUID) -> TenantRow:
    """One tenant: the principal's own or one that it holds.

    Raises:
        NotFound: There is none, or it is somebody else's.
    """
    row = await rows.get(session, tenant_id)
    if row is None:
        raise NotFound(f"there is no tenant {tenant_id}")
    return row


async def list_visible(session: AsyncSession, principal: Principal) -> list[TenantRow]:
    """The principal's own tenant, and what it holds."""
    return await rows.visible(session)


async def find(db: Database, slug: str) -> TenantRow | None:
    """The tenant of this slug, before anybody is bound to it (a token names its tenant so)."""
    tenant_id: UUID | None = await db.call("select find_tenant(:slug)", slug=slug)
    if tenant_id is None:
        return None
    async with db.tenant_session(tenant_id) as session:
        return await rows.get(session, tenant_id)


@asynccontextmanager
async def acting_in(db: Database, principal: Principal, tenant_id: UUID) -> AsyncGenerator[AsyncSession]:
    """One transaction bound to `tenant_id`, for its own people or for those of its holding.

    INVARIANT: a foreign tenant is bound only after the database itself has said that the principal's tenant holds
    it. What the principal may do there is the use case's to say.

    Raises:
        NotFound: It is neither the principal's tenant nor held by it.
    """
    if tenant_id != principal.tenant_id:
        holds = await db.call(
            "select is_holding_of(:holding, :subsidiary)", holding=principal.tenant_id, subsidiary=tenant_id
        )
        if not holds:
            raise NotFound(f"there is no tenant {tenant_id}")
    async with db.tenant_session(tenant_id) as session:
        yield session
