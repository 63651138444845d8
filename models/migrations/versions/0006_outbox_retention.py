"""Outbox entries that were carried are forgotten after 30 days, by the reconciliation, some at a time."""

from __future__ import annotations

from alembic import op

from models.migrations.rls import definer_function

revision = "0006"
down_revision = "0005"

# INVARIANT: the function's owner sees and deletes nothing that is younger, or that was never carried: the policy says
# so, whatever the function's body says.
OLD = "done_at < now() - interval '30 days'"


def upgrade() -> None:
    """Let one function, called by the finding role alone, delete what is old."""
    op.execute("CREATE INDEX outbox_done ON outbox (done_at) WHERE done_at IS NOT NULL")
    op.execute(f"CREATE POLICY finder_forgets ON outbox TO awgp_finder USING ({OLD}) WITH CHECK (false)")
    op.execute("GRANT SELECT, DELETE ON outbox TO awgp_finder")
    op.execute("GRANT CREATE ON SCHEMA public TO awgp_finder")
    for statement in definer_function(
        "forget_old_records(most integer) RETURNS bigint LANGUAGE sql",
        f"""WITH old AS (SELECT tenant_id, id FROM outbox WHERE {OLD} ORDER BY done_at LIMIT least(most, 1000)),
              gone AS (DELETE FROM outbox o USING old WHERE o.tenant_id = old.tenant_id AND o.id = old.id RETURNING 1)
            SELECT count(*) FROM gone""",  # noqa: S608 - a constant
        to="awgp_system",
    ):
        op.execute(statement)
    op.execute("REVOKE CREATE ON SCHEMA public FROM awgp_finder")


def downgrade() -> None:
    """Nothing is forgotten any more."""
    op.execute("DROP FUNCTION forget_old_records(integer)")
    op.execute("REVOKE SELECT, DELETE ON outbox FROM awgp_finder")
    op.execute("DROP POLICY finder_forgets ON outbox")
    op.execute("DROP INDEX outbox_done")
