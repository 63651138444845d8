"""The hash chain of the audit trail: events collected in a session, sealed as its transaction's last act.

The hash of an event is SHA-256 over the RFC 8785 canonical JSON of its fields and the hash before it, so an export
verifies without the database.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import rfc8785
from pydantic import BaseModel, ConfigDict
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

GENESIS = ""
_FIELDS = (
    "tenant_id", "seq", "occurred_at", "kind", "actor_tenant_id", "actor_id", "actor_name", "work_item_id",
    "subject", "summary", "data",
)  # fmt: skip


class AuditEvent(BaseModel):
    """One thing that happened, before it has its place in the chain.

    Attributes:
        kind: Dotted word, e.g. `work_item.created`, `approval.decided`, `warrant.refused`.
        subject: `<thing>/<id>` that it happened to.
        summary: One line for people.
        data: Small JSON values; integers within ±2^53 (larger ones as text).
    """

    model_config = ConfigDict(frozen=True)

    tenant_id: UUID
    kind: str
    actor_tenant_id: UUID | None
    actor_id: str
    actor_name: str
    work_item_id: UUID | None = None
    subject: str
    summary: str
    data: dict[str, Any] = {}


def event_hash(event: Mapping[str, Any], prev_hash: str) -> str:
    """Hash of an event as exported: `_FIELDS` with ids and times as text, chained to the hash before it."""
    body = {field: _plain(event[field]) for field in _FIELDS}
    return hashlib.sha256(rfc8785.dumps({**body, "prev_hash": prev_hash})).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return str(value) if isinstance(value, UUID) else value


def append_audit(session: AsyncSession, event: AuditEvent) -> None:
    """Remember `event` for the end of this transaction."""
    cast("list[AuditEvent]", session.info.setdefault("audit_events", [])).append(event)


async def seal_audit(session: AsyncSession) -> None:
    """Give the remembered events their place in their tenants' chains.

    INVARIANT: the head's row lock is the last lock that a transaction takes, tenants in sorted order.
    """
    events = cast("list[AuditEvent]", session.info.pop("audit_events", []))
    if not events:
        return
    await session.flush()
    for tenant_id in sorted({event.tenant_id for event in events}):
        await _seal_tenant(session, tenant_id, [event for event in events if event.tenant_id == tenant_id])


async def _seal_tenant(session: AsyncSession, tenant_id: UUID, events: Iterable[AuditEvent]) -> None:
    connection = await session.connection()
    await connection.execute(
        text("insert into audit_heads (tenant_id) values (:tenant) on conflict do nothing"),
        {"tenant": tenant_id},
    )
    head = (
        await connection.execute(
            text(
                "select seq, hash, clock_timestamp() as now from audit_heads where tenant_id = :tenant for update"
            ),
            {"tenant": tenant_id},
        )
    ).one()
    seq, prev_hash = head.seq, head.hash
    rows: list[dict[str, Any]] = []
    for event in events:
        seq += 1
        row = {**event.model_dump(), "seq": seq, "occurred_at": head.now}
        row |= {"prev_hash": prev_hash, "hash": event_hash(row, prev_hash)}
        prev_hash = row["hash"]
        rows.append({**row, "data": rfc8785.dumps(event.data).decode()})
    await connection.execute(
        text(
            f"insert into audit_events ({', '.join(_FIELDS)}, prev_hash, hash) values"
            f" ({', '.join(f'cast(:{f} as jsonb)' if f == 'data' else f':{f}' for f in _FIELDS)}, :prev_hash, :hash)"
        ),
        rows,
    )
    await connection.execute(
        text("update audit_heads set seq = :seq, hash = :hash where tenant_id = :tenant"),
        {"seq": seq, "hash": prev_hash, "tenant": tenant_id},
    )
