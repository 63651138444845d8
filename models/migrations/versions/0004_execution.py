"""Host runtimes and their enrolment, runs with their leases, warrants, log chunks."""

from __future__ import annotations

from alembic import op

from models.migrations.rls import definer_function, finder_reads, system_finds, tenant_table

revision = "0004"
down_revision = "0003"

TABLES = (
    """CREATE TABLE runtimes (
        tenant_id uuid NOT NULL REFERENCES tenants, id uuid NOT NULL, name text NOT NULL, public_key text NOT NULL,
        facts jsonb NOT NULL DEFAULT '{}', enabled boolean NOT NULL DEFAULT true,
        enrolled_at timestamptz NOT NULL DEFAULT now(), last_heard_at timestamptz, PRIMARY KEY (tenant_id, id),
        UNIQUE (tenant_id, public_key))""",
    """CREATE TABLE enrolment_tokens (
        tenant_id uuid NOT NULL REFERENCES tenants, id uuid NOT NULL, token_hash text NOT NULL UNIQUE,
        created_by text NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz NOT NULL,
        used_at timestamptz, runtime_id uuid, PRIMARY KEY (tenant_id, id))""",
    """CREATE TABLE runs (
        tenant_id uuid NOT NULL, id uuid NOT NULL, work_item_id uuid NOT NULL,
        status text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'claimed', 'running', 'ended')),
        attempt integer NOT NULL DEFAULT 0, runtime_id uuid, broker_id text, warrant_id uuid,
        lease_until timestamptz, claimed_at timestamptz, placed_at timestamptz, started_at timestamptz, ended_at timestamptz,
        kill_reason text, log_offset bigint NOT NULL DEFAULT 0, lost_seconds integer NOT NULL DEFAULT 0 CHECK (lost_seconds >= 0),
        outcome text, result jsonb,
        created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (tenant_id, id),
        FOREIGN KEY (tenant_id, work_item_id) REFERENCES work_items (tenant_id, id),
        FOREIGN KEY (tenant_id, runtime_id) REFERENCES runtimes (tenant_id, id))""",
    # INVARIANT: a work item has at most one run that is not ended.
    "CREATE UNIQUE INDEX runs_one_open ON runs (tenant_id, work_item_id) WHERE status <> 'ended'",
    "CREATE INDEX runs_open ON runs (status, lease_until) WHERE status <> 'ended'",
    """CREATE TABLE warrants (
        tenant_id uuid NOT NULL, id uuid NOT NULL, run_id uuid NOT NULL, work_item_id uuid NOT NULL,
        attempt integer NOT NULL, token text NOT NULL, claims jsonb NOT NULL, claim_before timestamptz NOT NULL,
        claimed_at timestamptz, revoked_at timestamptz, created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, run_id) REFERENCES runs (tenant_id, id))""",
    # INVARIANT: one live warrant an attempt; a stale one is revoked in the transaction that mints its successor.
    """CREATE UNIQUE INDEX warrants_one_live ON warrants (tenant_id, run_id) WHERE revoked_at IS NULL AND claimed_at IS NULL""",
    """CREATE TABLE log_chunks (
        tenant_id uuid NOT NULL, run_id uuid NOT NULL, attempt integer NOT NULL, start_offset bigint NOT NULL,
        end_offset bigint NOT NULL CHECK (end_offset > start_offset), sha256 text NOT NULL, size bigint NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (tenant_id, run_id, attempt, start_offset),
        FOREIGN KEY (tenant_id, run_id) REFERENCES runs (tenant_id, id))""",
)
TENANT_TABLES = ("runtimes", "enrolment_tokens", "runs", "warrants", "log_chunks")

FUNCTIONS = (
    definer_function(
        "find_runtime(wanted uuid) RETURNS uuid LANGUAGE sql STABLE",
        "SELECT tenant_id FROM runtimes WHERE id = wanted",
        to="awgp_app",
    ),
    definer_function(
        "find_enrolment(wanted_hash text) RETURNS uuid LANGUAGE sql STABLE",
        "SELECT tenant_id FROM enrolment_tokens WHERE token_hash = wanted_hash",
        to="awgp_app",
    ),
)


def upgrade() -> None:
    """Create the tables with their policies; the system role finds open runs."""
    op.execute("GRANT CREATE ON SCHEMA public TO awgp_finder")
    for statement in TABLES:
        op.execute(statement)
    for table in TENANT_TABLES:
        for statement in tenant_table(table):
            op.execute(statement)
    for statement in system_finds("runs"):
        op.execute(statement)
    for table in ("runtimes", "enrolment_tokens"):
        for statement in finder_reads(table):
            op.execute(statement)
    for function in FUNCTIONS:
        for statement in function:
            op.execute(statement)
    op.execute("REVOKE DELETE ON runs, warrants, log_chunks, runtimes, enrolment_tokens FROM awgp_app")
    op.execute("REVOKE UPDATE ON log_chunks FROM awgp_app")
    op.execute("REVOKE CREATE ON SCHEMA public FROM awgp_finder")


def downgrade() -> None:
    """Drop what this revision made."""
    op.execute("DROP FUNCTION find_enrolment(text)")
    op.execute("DROP FUNCTION find_runtime(uuid)")
    for table in reversed(TENANT_TABLES):
        op.execute(f"DROP TABLE {table}")
