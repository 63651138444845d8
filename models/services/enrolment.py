"""Enrolling host runtimes: a one-time token for one tenant, burnt at its first use.

`python -m models.services.enrolment --tenant <slug>` prints a token.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import secrets
import sys
from datetime import timedelta
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.principal import Principal, service_principal
from models.repositories import runtimes as rows
from models.repositories import tenants as tenant_rows
from models.services import audit, operations
from models.services.ids import new_id
from models.storage.db import Database
from models.tables.execution import EnrolmentTokenRow, RuntimeRow
from sandbox.link.backend import LinkRefusedError
from sandbox.link.messages import EnrolResponse

TOKEN_MINUTES = 15
REFUSED_EVERY_SECONDS = 60


def _hash(token: str) -> str:
    # A random token of 256 bits needs no slow hash.
    return hashlib.sha256(token.encode()).hexdigest()


async def create_token(session: AsyncSession, principal: Principal) -> str:
    """A new token of the session's tenant: good once, for 15 minutes; only its hash is kept."""
    token = secrets.token_urlsafe(32)
    now = await tenant_rows.database_now(session)
    row = EnrolmentTokenRow(
        tenant_id=session.info["tenant_id"],
        id=new_id(),
        token_hash=_hash(token),
        created_by=principal.subject,
        expires_at=now + timedelta(minutes=TOKEN_MINUTES),
    )
    session.add(row)
    audit.record(
        session,
        principal,
        kind="runtime.token_created",
        subject=f"enrolment_token/{row.id}",
        summary=f"A token to enrol one host runtime, good for {TOKEN_MINUTES} minutes",
    )
    return token


async def enrol(db: Database, token: str, name: str, public_key: bytes) -> EnrolResponse:
    """Burn the token and record the runtime's key.

    A runtime whose answer was lost asks again with the same key, and is answered the same.

    Raises:
        LinkRefusedError: The token is unknown (counted), used by somebody else or too old (audited).
    """
    hashed = _hash(token)
    tenant_id: UUID | None = await db.call("select find_enrolment(:hash)", hash=hashed)
    if tenant_id is None:
        await _count_noise(db, "enrolment_unknown_token")
        raise LinkRefusedError("this token is not known")
    principal = service_principal("broker", tenant_id)
    key = base64.b64encode(public_key).decode()
    async with db.session_for(principal) as session:
        row = await rows.lock_token(session, hashed)
        now = await tenant_rows.database_now(session)
        if row is None:
            raise LinkRefusedError("this token is not known")
        refusal = None
        if row.used_at is not None:
            known = await rows.by_key(session, tenant_id, key)
            if known is not None and known.id == row.runtime_id:
                return EnrolResponse(runtime_id=known.id, tenant_id=tenant_id)
            refusal = "this token was used before"
        elif row.expires_at <= now:
            refusal = "this token is too old"
        if refusal is None:
            return await _admit(session, principal, row, name, key)
        audit.record(
            session,
            principal,
            kind="runtime.enrolment_refused",
            subject=f"enrolment_token/{row.id}",
            summary=f"Enrolment of “{name}” refused: {refusal}",
            data={"name": name},
        )
    raise LinkRefusedError(refusal)


async def _admit(
    session: AsyncSession, principal: Principal, row: EnrolmentTokenRow, name: str, key: str
) -> EnrolResponse:
    known = await rows.by_key(session, row.tenant_id, key)
    runtime = known or RuntimeRow(tenant_id=row.tenant_id, id=new_id(), name=name, public_key=key, facts={})
    session.add(runtime)
    row.used_at, row.runtime_id = await tenant_rows.database_now(session), runtime.id
    session.add(row)
    await session.flush()
    audit.record(
        session,
        principal,
        kind="runtime.enrolled",
        subject=f"runtime/{runtime.id}",
        summary=f"Host runtime “{name}” belongs to this company now",
        data={"name": name, "public_key": key},
    )
    return EnrolResponse(runtime_id=runtime.id, tenant_id=row.tenant_id)


async def public_key(db: Database, runtime_id: UUID, tenant_id: UUID) -> bytes | None:
    """The key of exactly this runtime of this tenant, if it is enabled."""
    owner: UUID | None = await db.call("select find_runtime(:id)", id=runtime_id)
    if owner is None or owner != tenant_id:
        return None
    async with db.tenant_session(tenant_id) as session:
        row = await rows.get(session, tenant_id, runtime_id)
    return base64.b64decode(row.public_key) if row is not None and row.enabled else None


async def record_refused(db: Database, runtime_id: UUID, tenant_id: UUID, reason: str) -> None:
    """Somebody called in under this runtime's name and could not prove it.

    Audited where the real runtime is: that company must know. A name that nobody has is noise, and counted.

    INVARIANT: whoever only knows a name lets that company's chain grow by no more than one event a minute for each of
    the two tenants that can be claimed, its own and another, however many brokers are called; the rest is counted.
    """
    owner: UUID | None = await db.call("select find_runtime(:id)", id=runtime_id)
    if owner is None:
        await _count_noise(db, "runtime_unknown")
        return
    principal = service_principal("broker", owner)
    named = "its own" if owner == tenant_id else "another company's"
    async with db.session_for(principal) as session:
        fresh = await operations.at_most_every(
            session, owner, f"runtime-refused/{runtime_id}/{named}", REFUSED_EVERY_SECONDS
        )
        if fresh:
            audit.record(
                session,
                principal,
                kind="runtime.refused",
                subject=f"runtime/{runtime_id}",
                summary=f"A connection under this runtime's name and {named} tenant was refused: {reason}",
                data={"claimed_tenant_id": str(tenant_id), "reason": reason},
            )
    if not fresh:
        await _count_noise(db, "runtime_refused")


async def _count_noise(db: Database, what: str) -> None:
    await db.change("select count_noise(:what, 1)", what=what)


async def _print_token(slug: str) -> int:
    from models.settings import Settings

    db = Database(Settings().secret("database_app_url"), pool_size=2)
    try:
        tenant_id: UUID | None = await db.call("select find_tenant(:slug)", slug=slug)
        if tenant_id is None:
            sys.stderr.write(f"there is no tenant {slug!r}\n")
            return 1
        principal = service_principal("enrolment", tenant_id)
        async with db.session_for(principal) as session:
            token = await create_token(session, principal)
        sys.stdout.write(token + "\n")
        return 0
    finally:
        await db.close()


def main() -> int:
    """Print a one-time token for one host runtime of a tenant."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--tenant", required=True, help="the tenant's slug")
    return asyncio.run(_print_token(parser.parse_args().tenant))


if __name__ == "__main__":
    raise SystemExit(main())
