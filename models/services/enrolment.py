"""Enrolling host runtimes: a one-time token for one tenant, burnt at its first use."""

from __future__ import annotations

from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.principal import Principal
from models.storage.db import Database
from sandbox.link.messages import EnrolResponse


async def create_token(session: AsyncSession, principal: Principal) -> str:
    """A new token of the session's tenant: good once, for 15 minutes; only its hash is kept."""
    raise NotImplementedError


async def enrol(db: Database, token: str, name: str, public_key: bytes) -> EnrolResponse:
    """Burn the token and record the runtime's key.

    Raises:
        LinkRefused: The token is unknown, used (audited) or too old.
    """
    raise NotImplementedError


async def public_key(db: Database, runtime_id: UUID, tenant_id: UUID) -> bytes | None:
    """The key of exactly this runtime of this tenant, if it is enabled."""
    raise NotImplementedError
