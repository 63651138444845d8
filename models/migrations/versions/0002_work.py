"""Work items, their files and assessments, approvals and decisions."""

from __future__ import annotations

from alembic import op

from models.migrations.rls import system_finds, tenant_table

revision = "0002"
down_revision = "0001"

TABLES = (
    """CREATE TABLE work_items (
        tenant_id uuid NOT NULL REFERENCES tenants, id uuid NOT NULL,
        idempotency_key text NOT NULL, request_digest text NOT NULL,
        assistant_id uuid NOT NULL, requester_id uuid NOT NULL, policy_version_id uuid NOT NULL,
        title text NOT NULL, kind text NOT NULL, facts jsonb NOT NULL, parameters jsonb NOT NULL DEFAULT '{}',
        spec jsonb NOT NULL, spec_digest text NOT NULL, worst_case_nano bigint NOT NULL CHECK (worst_case_nano >= 0),
        status text NOT NULL DEFAULT 'submitted', status_seq bigint NOT NULL DEFAULT 1,
        held boolean NOT NULL DEFAULT false, null_runner boolean NOT NULL DEFAULT false,
        risk_level text, risk_score integer, reservation_id uuid, cost_nano bigint,
        reason text NOT NULL DEFAULT '', outcome text, result jsonb, cancel_requested_at timestamptz, cancel_reason text,
        created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(), ended_at timestamptz,
        PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, requester_id, idempotency_key),
        FOREIGN KEY (tenant_id, assistant_id) REFERENCES assistants (tenant_id, id),
        FOREIGN KEY (tenant_id, requester_id) REFERENCES principals (tenant_id, id),
        FOREIGN KEY (tenant_id, policy_version_id) REFERENCES policy_versions (tenant_id, id))""",
    "CREATE INDEX work_items_open ON work_items (status, created_at) WHERE ended_at IS NULL",
    "CREATE INDEX work_items_recent ON work_items (tenant_id, id DESC)",
    """CREATE TABLE work_item_files (
        tenant_id uuid NOT NULL, work_item_id uuid NOT NULL, direction text NOT NULL CHECK (direction IN ('in', 'out')),
        path text NOT NULL, sha256 text NOT NULL, size bigint NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, work_item_id, direction, path),
        FOREIGN KEY (tenant_id, work_item_id) REFERENCES work_items (tenant_id, id))""",
    """CREATE TABLE risk_assessments (
        tenant_id uuid NOT NULL, id uuid NOT NULL, work_item_id uuid NOT NULL, policy_version_id uuid NOT NULL,
        score integer NOT NULL, level text NOT NULL, factors jsonb NOT NULL, facts jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (tenant_id, id),
        FOREIGN KEY (tenant_id, work_item_id) REFERENCES work_items (tenant_id, id),
        FOREIGN KEY (tenant_id, policy_version_id) REFERENCES policy_versions (tenant_id, id))""",
    """CREATE TABLE approvals (
        tenant_id uuid NOT NULL, id uuid NOT NULL, work_item_id uuid NOT NULL, assessment_id uuid NOT NULL,
        policy_version_id uuid NOT NULL, level text NOT NULL, subject_digest text NOT NULL, requirement jsonb NOT NULL,
        tier text NOT NULL CHECK (tier IN ('tenant', 'holding')), status text NOT NULL DEFAULT 'pending',
        reason text NOT NULL DEFAULT '', expires_at timestamptz NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(), ended_at timestamptz, PRIMARY KEY (tenant_id, id),
        FOREIGN KEY (tenant_id, work_item_id) REFERENCES work_items (tenant_id, id),
        FOREIGN KEY (tenant_id, assessment_id) REFERENCES risk_assessments (tenant_id, id))""",
    "CREATE UNIQUE INDEX approvals_one_open ON approvals (tenant_id, work_item_id) WHERE status = 'pending'",
    "CREATE INDEX approvals_open ON approvals (status, expires_at) WHERE status = 'pending'",
    # A decider's key is (tenant, id): a holding's approver decides on a subsidiary's item, so no foreign key fits.
    """CREATE TABLE decisions (
        tenant_id uuid NOT NULL, id uuid NOT NULL, approval_id uuid NOT NULL,
        decider_tenant_id uuid NOT NULL, decider_id uuid NOT NULL, decider_subject text NOT NULL, decider_name text NOT NULL, decider_email text,
        decider_is_holding boolean NOT NULL, verdict text NOT NULL CHECK (verdict IN ('approve', 'reject')),
        reason text NOT NULL DEFAULT '', acr text, channel text NOT NULL, subject_digest text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (tenant_id, id),
        UNIQUE (tenant_id, approval_id, decider_tenant_id, decider_id),
        FOREIGN KEY (tenant_id, approval_id) REFERENCES approvals (tenant_id, id))""",
)
TENANT_TABLES = ("work_items", "work_item_files", "risk_assessments", "approvals", "decisions")


def upgrade() -> None:
    """Create the tables with their policies; decisions and assessments are never changed."""
    for statement in TABLES:
        op.execute(statement)
    for table in TENANT_TABLES:
        for statement in tenant_table(table):
            op.execute(statement)
    for table in ("work_items", "approvals"):
        for statement in system_finds(table):
            op.execute(statement)
    op.execute("REVOKE UPDATE, DELETE ON decisions, risk_assessments FROM awgp_app")
    op.execute("REVOKE DELETE ON work_items, approvals FROM awgp_app")


def downgrade() -> None:
    """Drop what this revision made."""
    for table in reversed(TENANT_TABLES):
        op.execute(f"DROP TABLE {table}")
