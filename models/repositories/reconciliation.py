"""What the reconciliation compares with Temporal; read by the finding role, outside any tenant."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from models.storage.db import Database


@dataclass(frozen=True)
class Found:
    """A row to compare.

    Attributes:
        status: As it was when it was found; whoever acts locks and reads again.
        is_final: Whether it has ended.
        by_itself: An approval that no work item's workflow starts: of an action, or of a staged set.
    """

    tenant_id: UUID
    id: UUID
    status: str
    is_final: bool
    work_item_id: UUID | None
    by_itself: bool = False


async def work_items(system: Database, after: UUID | None, limit: int) -> list[Found]:
    """A page of open items, in the order of their ids."""
    rows = await system.rows(
        """select tenant_id, id, status, false as is_final, id as work_item_id from work_items
            where ended_at is null and (cast(:after as uuid) is null or id > :after) order by id limit :limit""",
        after=after,
        limit=limit,
    )
    return [Found(**row) for row in rows]


async def ended_lately(system: Database, limit: int) -> list[Found]:
    """Items that ended some time between half a minute and ten minutes ago: their workflows should have, too."""
    rows = await system.rows(
        """select tenant_id, id, status, true as is_final, id as work_item_id from work_items
            where ended_at between clock_timestamp() - interval '10 min' and clock_timestamp() - interval '30 s'
            order by ended_at desc limit :limit""",
        limit=limit,
    )
    return [Found(**row) for row in rows]


async def approvals(system: Database, after: UUID | None, limit: int) -> list[Found]:
    """A page of pending approvals with the status of what waits for them, in the order of their ids.

    `is_final` says that nobody waits any more: the item has ended, or the action. A staged set outlives its run.
    """
    rows = await system.rows(
        """select a.tenant_id, a.id, coalesce(c.status, w.status) as status, w.id as work_item_id,
                  a.action_set_id is null
                    and case when a.action_id is null then w.ended_at else c.ended_at end is not null as is_final,
                  a.action_id is not null or a.action_set_id is not null as by_itself
             from approvals a left join work_items w on w.tenant_id = a.tenant_id and w.id = a.work_item_id
             left join actions c on c.tenant_id = a.tenant_id and c.id = a.action_id
            where a.status = 'pending'
              and (cast(:after as uuid) is null or a.id > :after) order by a.id limit :limit""",
        after=after,
        limit=limit,
    )
    return [Found(**row) for row in rows]


async def tenants_with_leaked_holds(system: Database) -> list[UUID]:
    """Tenants in which a hold lives on although its item has ended."""
    rows = await system.rows(
        """select distinct r.tenant_id from reservations r
             join work_items w on w.tenant_id = r.tenant_id and w.id = r.work_item_id
            where r.phase in ('waiting', 'claimed') and w.ended_at is not null order by r.tenant_id"""
    )
    return [row["tenant_id"] for row in rows]


async def make_audit_partitions(system: Database) -> None:
    """This month's partition of the audit trail and three ahead."""
    await system.change("select make_audit_partitions()")


async def forget_old_records(system: Database, most: int) -> int:
    """Delete outbox entries that were carried more than 30 days ago; answers how many."""
    return int((await system.change("select forget_old_records(:most) as gone", most=most))[0]["gone"])
