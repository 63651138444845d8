"""Counts again, from the database and as its superuser, what a suite claims. Reads only."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import DictRow, dict_row

from models.domain.work_item import FINAL
from models.storage.audit_chain import GENESIS, event_hash
from workers.stack.stack import Stack

TERMINAL = sorted(f"work_item.{status.value}" for status in FINAL)
OUTCOMES = ["approval.approved", "approval.cancelled", "approval.expired", "approval.rejected"]

# Each answers the ids at which it is not so; all are empty when nothing was lost and nothing was done twice.
FAULTS: Mapping[str, LiteralString] = {
    "ended without exactly one terminal audit event": """
        SELECT w.id FROM work_items w LEFT JOIN audit_events a ON a.tenant_id = w.tenant_id AND a.work_item_id = w.id
          AND a.kind = ANY(%(terminal)s) WHERE w.id = ANY(%(items)s) AND w.ended_at IS NOT NULL
        GROUP BY w.id HAVING count(a.seq) <> 1""",
    "terminal audit event of an item that is open": """
        SELECT w.id FROM work_items w JOIN audit_events a ON a.tenant_id = w.tenant_id AND a.work_item_id = w.id
          AND a.kind = ANY(%(terminal)s) WHERE w.id = ANY(%(items)s) AND w.ended_at IS NULL""",
    "more than one run": """
        SELECT work_item_id AS id FROM runs WHERE work_item_id = ANY(%(items)s) GROUP BY 1 HAVING count(*) > 1""",
    "an attempt that was started twice": """
        SELECT work_item_id AS id FROM audit_events WHERE work_item_id = ANY(%(items)s) AND kind = 'run.started'
        GROUP BY work_item_id, data->>'attempt' HAVING count(*) > 1""",
    "more than one attempt that started, of an assistant that may not be run again": """
        SELECT e.work_item_id AS id FROM audit_events e
          JOIN work_items w ON w.tenant_id = e.tenant_id AND w.id = e.work_item_id
          JOIN assistants s ON s.tenant_id = w.tenant_id AND s.id = w.assistant_id
        WHERE w.id = ANY(%(items)s) AND e.kind = 'run.started' AND NOT s.restartable
        GROUP BY e.work_item_id HAVING count(*) > 1""",
    "more than one warrant that was claimed for an attempt": """
        SELECT work_item_id AS id FROM warrants WHERE work_item_id = ANY(%(items)s) AND claimed_at IS NOT NULL
          AND run_id IS NOT NULL
        GROUP BY work_item_id, run_id, attempt HAVING count(*) > 1""",
    "run still open though its item has ended": """
        SELECT w.id FROM work_items w JOIN runs r ON r.tenant_id = w.tenant_id AND r.work_item_id = w.id
        WHERE w.id = ANY(%(items)s) AND w.ended_at IS NOT NULL AND r.status <> 'ended'""",
    "approval decided twice, or outcomes audited that differ from its row": """
        SELECT p.work_item_id AS id FROM approvals p LEFT JOIN audit_events a ON a.tenant_id = p.tenant_id
          AND a.subject = 'approval/' || p.id AND a.kind = ANY(%(outcomes)s) WHERE p.work_item_id = ANY(%(items)s)
        GROUP BY p.work_item_id, p.id, p.status
        HAVING count(a.seq) <> (CASE WHEN p.status = 'pending' THEN 0 ELSE 1 END)""",
    # Whether an effect of which nothing is known was done is asked also after its item's end.
    "approval still open though its item has ended": """
        SELECT w.id FROM work_items w JOIN approvals p ON p.tenant_id = w.tenant_id AND p.work_item_id = w.id
        WHERE w.id = ANY(%(items)s) AND w.ended_at IS NOT NULL AND p.status = 'pending' AND p.action_id IS NULL""",
    "reservation leaked: live, though its item has ended": """
        SELECT w.id FROM work_items w JOIN reservations r ON r.tenant_id = w.tenant_id AND r.work_item_id = w.id
        WHERE w.id = ANY(%(items)s) AND w.ended_at IS NOT NULL AND r.phase IN ('waiting', 'claimed')""",
    "charged more than once": """
        SELECT work_item_id AS id FROM charges WHERE work_item_id = ANY(%(items)s)
        GROUP BY work_item_id, kind HAVING count(*) > 1""",
}

# Whole tables: what a window says against what its reservations say.
BOOKS: Mapping[str, LiteralString] = {
    "budget window differs from its reservations": """
        SELECT w.budget_id AS id FROM budget_windows w
          LEFT JOIN reservation_lines l
            ON l.tenant_id = w.tenant_id AND l.budget_id = w.budget_id AND l.window_key = w.window_key
          LEFT JOIN reservations r ON r.tenant_id = l.tenant_id AND r.id = l.reservation_id
        GROUP BY w.tenant_id, w.budget_id, w.window_key, w.reserved_nano, w.waiting_nano, w.spent_nano
        HAVING w.reserved_nano <> coalesce(sum(r.amount_nano) FILTER (WHERE r.phase IN ('waiting', 'claimed')), 0)
          OR w.waiting_nano <> coalesce(sum(r.amount_nano) FILTER (WHERE r.phase = 'waiting'), 0)
          OR w.spent_nano <> coalesce(sum(r.charged_nano) FILTER (WHERE r.phase IN ('settled', 'released')), 0)""",
    "window of everything differs from its reservations": """
        SELECT w.window_kind AS id FROM everything_windows w
          LEFT JOIN reservation_everything_lines l ON l.window_kind = w.window_kind AND l.window_key = w.window_key
          LEFT JOIN reservations r ON r.tenant_id = l.tenant_id AND r.id = l.reservation_id
        GROUP BY w.window_kind, w.window_key, w.reserved_nano, w.waiting_nano, w.spent_nano
        HAVING w.reserved_nano <> coalesce(sum(r.amount_nano) FILTER (WHERE r.phase IN ('waiting', 'claimed')), 0)
          OR w.waiting_nano <> coalesce(sum(r.amount_nano) FILTER (WHERE r.phase = 'waiting'), 0)
          OR w.spent_nano <> coalesce(sum(r.charged_nano) FILTER (WHERE r.phase IN ('settled', 'released')), 0)""",
    "reservation charged otherwise than its charges": """
        SELECT r.id FROM reservations r LEFT JOIN charges c ON c.tenant_id = r.tenant_id AND c.reservation_id = r.id
        GROUP BY r.tenant_id, r.id, r.charged_nano HAVING r.charged_nano <> coalesce(sum(c.amount_nano), 0)""",
}


@dataclass(frozen=True)
class Count:
    """How many items there are in the database.

    Attributes:
        admitted: Rows.
        ended: Rows with a final status.
    """

    admitted: int
    ended: int


class Recount:
    """A superuser's connection to the control plane's database; made anew when the server went away."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._connection = self._connect()

    def _connect(self) -> psycopg.Connection[DictRow]:
        return psycopg.Connection[DictRow].connect(
            host="127.0.0.1",
            port=self._stack.ports.postgres,
            user="postgres",
            password=self._stack.credentials.postgres_superuser,
            dbname="awgp",
            autocommit=True,
            connect_timeout=10,
            row_factory=dict_row,
            options="-c default_transaction_read_only=on",
        )

    @classmethod
    @contextmanager
    def of(cls, stack: Stack) -> Generator[Recount]:
        """Connect; every statement is a transaction of its own that may not write."""
        recount = cls(stack)
        try:
            yield recount
        finally:
            recount._connection.close()

    def rows(self, sql: LiteralString, **given: Any) -> list[dict[str, Any]]:
        """The answer to a question."""
        try:
            return self._connection.execute(sql, given).fetchall()
        except psycopg.OperationalError:
            self._connection.close()
            self._stack.postgres.wait(self._stack.credentials)
            self._connection = self._connect()
            return self._connection.execute(sql, given).fetchall()

    def value(self, sql: LiteralString, **given: Any) -> Any:
        """The first column of the one row."""
        (row,) = self.rows(sql, **given)
        return next(iter(row.values()))

    def count(self, items: Collection[UUID]) -> Count:
        """How many of these items are there, and how many have ended."""
        (row,) = self.rows(
            "SELECT count(*) AS admitted, count(ended_at) AS ended FROM work_items WHERE id = ANY(%(items)s)",
            items=list(items),
        )
        return Count(**{field.name: int(row[field.name]) for field in fields(Count)})

    def faults(self, items: Collection[UUID]) -> dict[str, list[UUID]]:
        """What is not as it must be with these items, by words; empty when all is well."""
        given = {"items": list(items), "terminal": TERMINAL, "outcomes": OUTCOMES}
        found = {words: [row["id"] for row in self.rows(sql, **given)] for words, sql in FAULTS.items()}
        return {words: ids for words, ids in found.items() if ids}

    def books(self) -> dict[str, list[Any]]:
        """Where money does not add up, by words; empty when it does."""
        found = {words: [row["id"] for row in self.rows(sql)] for words, sql in BOOKS.items()}
        return {words: ids for words, ids in found.items() if ids}

    def kinds(self, item_id: UUID) -> list[str]:
        """Kinds of an item's audit events, in order."""
        sql = "SELECT kind FROM audit_events WHERE work_item_id = %(item)s ORDER BY seq"
        return [row["kind"] for row in self.rows(sql, item=item_id)]

    def broken_chains(self) -> list[str]:
        """Slugs of the tenants whose trail is not whole; every hash is computed again here."""
        heads = self.rows("SELECT tenant_id, seq, hash, slug FROM audit_heads JOIN tenants USING (tenant_id)")
        return [str(head["slug"]) for head in heads if not self._whole(head)]

    def _whole(self, head: dict[str, Any]) -> bool:
        hash_before, seq = GENESIS, 0
        for row in self.rows(
            "SELECT * FROM audit_events WHERE tenant_id = %(tenant)s AND seq <= %(seq)s ORDER BY seq",
            tenant=head["tenant_id"],
            seq=head["seq"],
        ):
            seq += 1
            if (row["seq"], row["prev_hash"], row["hash"]) != (seq, hash_before, event_hash(row, hash_before)):
                return False
            hash_before = row["hash"]
        return seq == head["seq"] and hash_before == head["hash"]


def expect_well(recount: Recount, items: Collection[UUID]) -> None:
    """Assert that these items are all ended, once each, and that money and audit trails are whole."""
    count = recount.count(items)
    assert (count.admitted, count.ended) == (len(set(items)), len(set(items))), count
    assert not (faults := recount.faults(items)), faults
    assert not (books := recount.books()), books
    assert not (broken := recount.broken_chains()), broken
