"""The live timeline of a work item: one order over output, progress, model calls, actions and resource use."""

from __future__ import annotations

from alembic import op

from models.migrations.rls import tenant_table

revision = "0010"
down_revision = "0009"

TABLES = (
    """CREATE TABLE item_event_heads (
        tenant_id uuid NOT NULL, work_item_id uuid NOT NULL, seq bigint NOT NULL DEFAULT 0,
        PRIMARY KEY (tenant_id, work_item_id),
        FOREIGN KEY (tenant_id, work_item_id) REFERENCES work_items (tenant_id, id))""",
    """CREATE TABLE item_events (
        tenant_id uuid NOT NULL, work_item_id uuid NOT NULL, seq bigint NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp(),
        kind text NOT NULL, source text, data jsonb NOT NULL, PRIMARY KEY (tenant_id, work_item_id, seq),
        -- What is told twice (a retry, a second flush) is one event.
        UNIQUE (tenant_id, work_item_id, source),
        FOREIGN KEY (tenant_id, work_item_id) REFERENCES work_items (tenant_id, id))""",
)
TENANT_TABLES = ("item_event_heads", "item_events")


def upgrade() -> None:
    """Create the tables; an event is never changed."""
    for statement in TABLES:
        op.execute(statement)
    for table, grants in (("item_event_heads", "SELECT, INSERT, UPDATE"), ("item_events", "SELECT, INSERT")):
        for statement in tenant_table(table, grants=grants):
            op.execute(statement)


def downgrade() -> None:
    """Drop what this revision made."""
    for table in reversed(TENANT_TABLES):
        op.execute(f"DROP TABLE {table}")
