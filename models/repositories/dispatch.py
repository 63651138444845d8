"""Queries of the relay, run by the finding role outside any tenant: what is due, and what must be woken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from models.storage.db import Database

TAKEN_FOR_SECONDS = 15
"""How long a taken entry is left to the relay that took it; after this it is due again, so one that died loses none."""
LONGEST_DELAY_SECONDS = 300


@dataclass(frozen=True)
class Entry:
    """An outbox entry that this relay has taken.

    Attributes:
        attempts: How often it was taken, this time included.
    """

    tenant_id: UUID
    id: UUID
    kind: str
    payload: dict[str, Any]
    attempts: int


async def take_due(system: Database, limit: int) -> list[Entry]:
    """Take entries that are due, oldest first, so that no other relay takes them for a while."""
    rows = await system.change(
        """update outbox o set attempts = o.attempts + 1,
                due_at = clock_timestamp() + make_interval(secs => :taken_for)
             from (select tenant_id, id from outbox where done_at is null and due_at <= clock_timestamp()
                   order by due_at limit :limit for update skip locked) due
            where o.tenant_id = due.tenant_id and o.id = due.id
        returning o.tenant_id, o.id, o.kind, o.payload, o.attempts""",
        taken_for=TAKEN_FOR_SECONDS,
        limit=limit,
    )
    return sorted((Entry(**row) for row in rows), key=lambda entry: entry.id)


async def mark_done(system: Database, entries: Sequence[Entry]) -> None:
    """The entries have reached their receiver."""
    statement = "update outbox o set done_at = clock_timestamp(), last_error = null" + _THESE  # noqa: S608 - constants
    await system.change(statement, **_keys(entries))


async def put_back(system: Database, entries: Sequence[Entry], error: str) -> None:
    """Try again later, ever more rarely; they are never given up, and never in the way of others."""
    delay = "make_interval(secs => least(:longest, power(2, least(attempts, 16)) * 0.25))"
    await system.change(
        f"update outbox o set last_error = :error, due_at = clock_timestamp() + {delay} {_THESE}",  # noqa: S608
        error=error[:500],
        longest=LONGEST_DELAY_SECONDS,
        **_keys(entries),
    )


async def give_back(system: Database, entries: Sequence[Entry]) -> None:
    """They were taken and never tried: due at once, and the taking does not count."""
    await system.change(
        "update outbox o set due_at = clock_timestamp(), attempts = greatest(attempts - 1, 0)" + _THESE,  # noqa: S608
        **_keys(entries),
    )


_THESE = """ from unnest(cast(:tenants as uuid[]), cast(:ids as uuid[])) as these (tenant_id, id)
            where o.tenant_id = these.tenant_id and o.id = these.id and o.done_at is null"""


def _keys(entries: Sequence[Entry]) -> dict[str, list[UUID]]:
    return {"tenants": [entry.tenant_id for entry in entries], "ids": [entry.id for entry in entries]}


async def awaiting_budget(system: Database, tenant_id: UUID | None) -> list[tuple[UUID, UUID]]:
    """(tenant, item) of the items that wait for money, oldest first; of all tenants when None."""
    rows = await system.rows(
        """select tenant_id, id from work_items where status = 'awaiting_budget' and ended_at is null
              and (cast(:tenant as uuid) is null or tenant_id = :tenant) order by created_at, id""",
        tenant=tenant_id,
    )
    return [(row["tenant_id"], row["id"]) for row in rows]


async def open_items(system: Database, tenant_id: UUID | None, assistant_id: UUID | None) -> list[tuple[UUID, UUID]]:
    """(tenant, item) of the open items that a halt concerns, oldest first."""
    rows = await system.rows(
        """select tenant_id, id from work_items where ended_at is null
              and (cast(:tenant as uuid) is null or tenant_id = :tenant)
              and (cast(:assistant as uuid) is null or assistant_id = :assistant) order by created_at, id""",
        tenant=tenant_id,
        assistant=assistant_id,
    )
    return [(row["tenant_id"], row["id"]) for row in rows]
