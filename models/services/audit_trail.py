"""Reading, verifying and exporting a tenant's audit trail."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.errors import InvalidInput
from models.domain.principal import Principal
from models.domain.views import AuditView, ChainReport
from models.repositories import audit as rows
from models.repositories import paging
from models.repositories.audit import Filter
from models.services import tenants
from models.storage.audit_chain import GENESIS, event_hash
from models.storage.db import Database
from models.tables.records import AuditEventRow

__all__ = ["Filter", "export", "list_page", "verify"]

BATCH = 1000


async def list_page(
    session: AsyncSession,
    principal: Principal,
    wanted: Filter = Filter(),
    cursor: str | None = None,
    limit: int = 50,
    tenant_id: UUID | None = None,
) -> tuple[list[AuditView], str | None]:
    """Events of one trail (the principal's own by default), newest first, and the next cursor.

    Raises:
        NotFound: The principal's company does not see that tenant.
        InvalidInput: The cursor is none that we gave.
    """
    trail = await _trail(session, principal, tenant_id)
    size = paging.page_size(limit)
    found = await rows.page(session, trail, wanted, _before(cursor), size + 1)
    page = [AuditView.model_validate(row, from_attributes=True) for row in found[:size]]
    return page, str(page[-1].seq) if len(found) > size else None


async def verify(session: AsyncSession, principal: Principal, tenant_id: UUID | None = None) -> ChainReport:
    """Recompute a trail's chain from its first event, in batches, and hold it against the recorded head.

    Raises:
        NotFound: The principal's company does not see that tenant.
    """
    trail = await _trail(session, principal, tenant_id)
    # INVARIANT: the head is read first; what is appended meanwhile lies behind it and is not looked at.
    head = await rows.head(session, trail)
    head_seq, head_hash = (head.seq, head.hash) if head is not None else (0, GENESIS)
    seq, prev_hash = 0, GENESIS
    while seq < head_seq:
        batch = [row for row in await rows.batch(session, trail, seq, BATCH) if row.seq <= head_seq]
        if not batch:
            return _broken(trail, seq, head_seq, head_hash, f"event {seq + 1} is missing")
        for row in batch:
            fault = _fault(row, seq + 1, prev_hash)
            if fault:
                return _broken(trail, seq, head_seq, head_hash, fault)
            seq, prev_hash = row.seq, row.hash
        session.expunge_all()
    if prev_hash != head_hash:
        return _broken(trail, max(0, seq - 1), head_seq, head_hash, "the last event is not the recorded head")
    if head is None and await rows.batch(session, trail, 0, 1):
        return _broken(trail, 0, head_seq, head_hash, "there are events, and no recorded head")
    words = f"The chain of {seq} events is whole."
    return ChainReport(tenant_id=trail, whole=True, events=seq, head_seq=head_seq, head_hash=head_hash, words=words)


async def export(db: Database, principal: Principal, tenant_id: UUID | None = None) -> AsyncGenerator[str]:
    """A trail as JSON lines in the chain's order, enough to verify it without the database.

    Each batch is a transaction of its own, so that a reader who takes long keeps no connection from others.

    Raises:
        NotFound: The principal's company does not see that tenant.
    """
    async with db.session_for(principal) as session:
        trail = await _trail(session, principal, tenant_id)
    seq = 0
    while True:
        async with db.session_for(principal) as session:
            batch = [exported(row) for row in await rows.batch(session, trail, seq, BATCH)]
        for event in batch:
            yield json.dumps(event, sort_keys=True, separators=(",", ":")) + "\n"
        if len(batch) < BATCH:
            return
        seq = batch[-1]["seq"]


def exported(row: AuditEventRow) -> dict[str, Any]:
    """One event with ids and times as text, as its hash is computed over them."""
    plain = row.model_dump(mode="json")
    return plain | {"occurred_at": row.occurred_at.astimezone(UTC).isoformat(timespec="microseconds")}


def verify_lines(lines: list[str]) -> int | None:
    """The first number at which an export's chain does not hold; None when it is whole. Needs no database."""
    prev_hash = GENESIS
    for number, line in enumerate(lines, start=1):
        event = json.loads(line)
        moment = datetime.fromisoformat(event["occurred_at"])
        if event["seq"] != number or event["prev_hash"] != prev_hash:
            return number
        if event_hash(event | {"occurred_at": moment}, prev_hash) != event["hash"]:
            return number
        prev_hash = event["hash"]
    return None


async def _trail(session: AsyncSession, principal: Principal, tenant_id: UUID | None) -> UUID:
    if tenant_id is None or tenant_id == principal.tenant_id:
        return principal.tenant_id
    return (await tenants.read(session, principal, tenant_id)).tenant_id


def _fault(row: AuditEventRow, seq: int, prev_hash: str) -> str:
    if row.seq != seq:
        return f"event {seq} is missing" if row.seq > seq else f"event {row.seq} stands twice"
    if row.prev_hash != prev_hash:
        return f"event {seq} does not follow from the one before"
    if event_hash(row.model_dump(), prev_hash) != row.hash:
        return f"event {seq} is not what was recorded"
    return ""


def _broken(trail: UUID, good: int, head_seq: int, head_hash: str, words: str) -> ChainReport:
    return ChainReport(
        tenant_id=trail,
        whole=False,
        events=good,
        head_seq=head_seq,
        head_hash=head_hash,
        first_bad_seq=good + 1,
        words=words[0].upper() + words[1:] + ".",
    )


def _before(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 18:
        raise InvalidInput(
            "the cursor is none that a page gave", errors=[{"where": "cursor", "what": "unknown cursor"}]
        )
    return int(cursor)
