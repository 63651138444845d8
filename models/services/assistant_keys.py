"""Keys of assistants whose agents run elsewhere: made, listed, revoked, and shown as a credential."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import timedelta
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import AgentCaller
from models.domain.errors import Forbidden, NotFound, Unauthenticated
from models.domain.principal import Principal, Role
from models.repositories import agents as rows
from models.repositories import assistants as assistant_rows
from models.repositories import tenants as tenant_rows
from models.services import audit
from models.services.ids import new_id
from models.storage.db import Database
from models.tables.actions import AssistantKeyRow
from models.tables.tenancy import AssistantRow

PREFIX = "awgp_ak_"
_SHOWN = len(PREFIX) + 6
_REFUSED = "this is no assistant's key, or not any more"


async def create(
    session: AsyncSession, principal: Principal, assistant_id: UUID, expires_in_days: int | None
) -> tuple[AssistantKeyRow, str]:
    """Make a key; the answer's second part is shown this once, and only its hash is kept.

    Raises:
        NotFound: Not an assistant of the principal's own company.
        Forbidden: It takes its owner or a tenant admin.
    """
    assistant = await _own(session, principal, assistant_id)
    key = PREFIX + secrets.token_urlsafe(32)
    now = await tenant_rows.database_now(session)
    row = AssistantKeyRow(
        tenant_id=assistant.tenant_id,
        id=new_id(),
        assistant_id=assistant.id,
        key_hash=_hash(key),
        prefix=key[:_SHOWN],
        created_by=principal.id,
        created_at=now,
        expires_at=now + timedelta(days=expires_in_days) if expires_in_days is not None else None,
    )
    session.add(row)
    await session.flush()
    _record(session, principal, assistant, row, "assistant_key.created", "was made")
    return row, key


async def list_keys(session: AsyncSession, principal: Principal, assistant_id: UUID) -> list[AssistantKeyRow]:
    """An assistant's keys, newest first, without what they are shown as.

    Raises:
        NotFound: Not an assistant of the principal's own company.
        Forbidden: It takes its owner or a tenant admin.
    """
    assistant = await _own(session, principal, assistant_id)
    return await rows.keys_of(session, assistant.tenant_id, assistant.id)


async def revoke(session: AsyncSession, principal: Principal, assistant_id: UUID, key_id: UUID) -> AssistantKeyRow:
    """Let a key open nothing any more; repeatable.

    Raises:
        NotFound: There is no such key of an assistant of the principal's own company.
        Forbidden: It takes its owner or a tenant admin.
    """
    assistant = await _own(session, principal, assistant_id)
    row = await rows.lock_key(session, assistant.tenant_id, assistant.id, key_id)
    if row is None:
        raise NotFound(f"the assistant has no key {key_id}")
    if row.revoked_at is None:
        row.revoked_at = await tenant_rows.database_now(session)
        session.add(row)
        await session.flush()
        _record(session, principal, assistant, row, "assistant_key.revoked", "was revoked")
    return row


async def caller_of(db: Database, key: str) -> AgentCaller:
    """Whose key this is, now.

    Raises:
        Unauthenticated: Nobody's, or it is revoked or over.
    """
    wanted = _hash(key)
    tenant_id: UUID | None = await db.call("select find_assistant_key(:wanted)", wanted=wanted)
    if tenant_id is None:
        raise Unauthenticated(_REFUSED)
    async with db.tenant_session(tenant_id) as session:
        row = await rows.key_by_hash(session, wanted)
        now = await tenant_rows.database_now(session)
    # What is compared is hashes of the whole key: how long it takes says nothing of another key.
    if row is None or not hmac.compare_digest(row.key_hash, wanted):
        raise Unauthenticated(_REFUSED)
    if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
        raise Unauthenticated(_REFUSED)
    return AgentCaller(tenant_id=tenant_id, assistant_id=row.assistant_id, key_id=row.id)


def _hash(key: str) -> str:
    """256 random bits need no slow hash."""
    return hashlib.sha256(key.encode()).hexdigest()


async def _own(session: AsyncSession, principal: Principal, assistant_id: UUID) -> AssistantRow:
    assistant = await assistant_rows.get(session, assistant_id)
    if assistant is None or assistant.tenant_id != principal.tenant_id:
        raise NotFound(f"there is no assistant {assistant_id}")
    if assistant.owner_id != principal.id and Role.TENANT_ADMIN not in principal.roles:
        raise Forbidden("an assistant's keys are its owner's or a tenant admin's")
    return assistant


def _record(
    session: AsyncSession, principal: Principal, assistant: AssistantRow, row: AssistantKeyRow, kind: str, what: str
) -> None:
    audit.record(
        session,
        principal,
        kind=kind,
        subject=f"assistant/{assistant.id}",
        summary=f"The key {row.prefix}… of {assistant.slug} {what}",
        data={"key_id": str(row.id), "expires_at": row.expires_at.isoformat() if row.expires_at else None},
    )
