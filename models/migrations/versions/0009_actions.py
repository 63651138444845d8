"""Actions in mid-run and from agents elsewhere: asked, approved, performed by connectors; keys, secrets, staged sets."""

from __future__ import annotations

from alembic import op

from models.migrations.rls import definer_function, finder_reads, system_finds, tenant_table

revision = "0009"
down_revision = "0008"

STATUSES = (
    "'permitted', 'pending', 'denied', 'edited', 'staged', 'performing', 'performed', 'failed', 'unknown',"
    " 'expired', 'cancelled', 'discarded'"
)
TABLES = (
    """CREATE TABLE assistant_keys (
        tenant_id uuid NOT NULL, id uuid NOT NULL, assistant_id uuid NOT NULL, key_hash text NOT NULL UNIQUE,
        prefix text NOT NULL, created_by uuid NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz, revoked_at timestamptz, PRIMARY KEY (tenant_id, id),
        FOREIGN KEY (tenant_id, assistant_id) REFERENCES assistants (tenant_id, id))""",
    """CREATE TABLE secrets (
        tenant_id uuid NOT NULL REFERENCES tenants, name text NOT NULL, ciphertext text NOT NULL,
        created_by text NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, name))""",
    """CREATE TABLE connectors (
        tenant_id uuid NOT NULL REFERENCES tenants, id uuid NOT NULL, name text NOT NULL,
        kind text NOT NULL CHECK (kind IN ('http', 'n8n', 'file')), config jsonb NOT NULL, enabled boolean NOT NULL DEFAULT true,
        version integer NOT NULL DEFAULT 1, created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, name))""",
    """CREATE TABLE action_sets (
        tenant_id uuid NOT NULL, id uuid NOT NULL, work_item_id uuid NOT NULL, digest text NOT NULL, level text NOT NULL,
        status text NOT NULL CHECK (status IN ('pending', 'approved', 'denied', 'expired', 'committed', 'stopped', 'discarded')),
        reason text NOT NULL DEFAULT '', created_at timestamptz NOT NULL DEFAULT now(), ended_at timestamptz,
        PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, work_item_id, digest),
        FOREIGN KEY (tenant_id, work_item_id) REFERENCES work_items (tenant_id, id))""",
    # work_item_id and run_id are null for an agent that runs elsewhere.
    f"""CREATE TABLE actions (
        tenant_id uuid NOT NULL REFERENCES tenants, id uuid NOT NULL, assistant_id uuid NOT NULL,
        work_item_id uuid, run_id uuid, attempt integer,
        idempotency_key text NOT NULL, request_digest text NOT NULL, kind text NOT NULL, target text NOT NULL,
        class_digest text NOT NULL, parameters jsonb NOT NULL, effect jsonb, mode text NOT NULL CHECK (mode IN ('wait', 'async', 'staged')),
        reason text NOT NULL DEFAULT '', facts jsonb NOT NULL, policy_version_id uuid NOT NULL,
        level text NOT NULL, score integer NOT NULL, factors jsonb NOT NULL, digest text NOT NULL, asked_digest text NOT NULL,
        status text NOT NULL CHECK (status IN ({STATUSES})), words text NOT NULL DEFAULT '',
        approval_id uuid, set_id uuid, position integer, warrant_id uuid, result jsonb,
        created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
        decided_at timestamptz, ended_at timestamptz,
        PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, assistant_id, idempotency_key),
        FOREIGN KEY (tenant_id, assistant_id) REFERENCES assistants (tenant_id, id),
        FOREIGN KEY (tenant_id, work_item_id) REFERENCES work_items (tenant_id, id),
        FOREIGN KEY (tenant_id, run_id) REFERENCES runs (tenant_id, id),
        FOREIGN KEY (tenant_id, set_id) REFERENCES action_sets (tenant_id, id),
        FOREIGN KEY (tenant_id, policy_version_id) REFERENCES policy_versions (tenant_id, id))""",
    "CREATE INDEX actions_item ON actions (tenant_id, work_item_id, id)",
    "CREATE INDEX actions_class ON actions (tenant_id, assistant_id, class_digest, id DESC)",
    "CREATE INDEX actions_open ON actions (status, created_at) WHERE ended_at IS NULL",
    # One row a try at the other side; a try that is 'sent' and has no end is not known to have been done or not.
    """CREATE TABLE effect_attempts (
        tenant_id uuid NOT NULL, action_id uuid NOT NULL, attempt integer NOT NULL CHECK (attempt > 0),
        state text NOT NULL CHECK (state IN ('sent', 'performed', 'failed', 'unknown')),
        request jsonb NOT NULL, response jsonb, started_at timestamptz NOT NULL DEFAULT now(), ended_at timestamptz,
        PRIMARY KEY (tenant_id, action_id, attempt),
        FOREIGN KEY (tenant_id, action_id) REFERENCES actions (tenant_id, id))""",
    """CREATE TABLE questions (
        tenant_id uuid NOT NULL, id uuid NOT NULL, work_item_id uuid NOT NULL, run_id uuid NOT NULL,
        idempotency_key text NOT NULL, words text NOT NULL, options jsonb NOT NULL DEFAULT '[]', answer text, answered_by text,
        created_at timestamptz NOT NULL DEFAULT now(), answered_at timestamptz, PRIMARY KEY (tenant_id, id),
        UNIQUE (tenant_id, work_item_id, idempotency_key),
        FOREIGN KEY (tenant_id, work_item_id) REFERENCES work_items (tenant_id, id))""",
    # What an agent saved for its next attempt; the bytes are in the blob store.
    """CREATE TABLE run_states (
        tenant_id uuid NOT NULL, run_id uuid NOT NULL, sha256 text NOT NULL, size bigint NOT NULL, attempt integer NOT NULL,
        saves integer NOT NULL DEFAULT 1, updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (tenant_id, run_id),
        FOREIGN KEY (tenant_id, run_id) REFERENCES runs (tenant_id, id))""",
    # An approval is about a work item, one action, or a staged set of actions.
    "ALTER TABLE approvals ALTER COLUMN work_item_id DROP NOT NULL",
    "ALTER TABLE approvals ADD COLUMN action_id uuid, ADD COLUMN action_set_id uuid",
    """ALTER TABLE approvals ADD CHECK (work_item_id IS NOT NULL OR action_id IS NOT NULL),
        ADD CHECK (action_id IS NULL OR action_set_id IS NULL),
        ADD FOREIGN KEY (tenant_id, action_id) REFERENCES actions (tenant_id, id),
        ADD FOREIGN KEY (tenant_id, action_set_id) REFERENCES action_sets (tenant_id, id)""",
    "DROP INDEX approvals_one_open",
    """CREATE UNIQUE INDEX approvals_one_open ON approvals (tenant_id, work_item_id)
        WHERE status = 'pending' AND action_id IS NULL AND action_set_id IS NULL""",
    "CREATE UNIQUE INDEX approvals_one_open_action ON approvals (tenant_id, action_id) WHERE status = 'pending' AND action_id IS NOT NULL",
    "CREATE UNIQUE INDEX approvals_one_open_set ON approvals (tenant_id, action_set_id) WHERE status = 'pending' AND action_set_id IS NOT NULL",
    "ALTER TABLE risk_assessments ALTER COLUMN work_item_id DROP NOT NULL, ADD COLUMN action_id uuid, ADD COLUMN action_set_id uuid",
    # What an approver changed before saying yes; the vote's digest is that of the changed thing.
    "ALTER TABLE decisions ADD COLUMN edits jsonb",
    # A warrant lets a run run, or one effect be performed.
    """ALTER TABLE warrants ALTER COLUMN run_id DROP NOT NULL, ALTER COLUMN work_item_id DROP NOT NULL,
        ADD COLUMN action_id uuid, ADD CHECK ((run_id IS NULL) <> (action_id IS NULL)),
        ADD FOREIGN KEY (tenant_id, action_id) REFERENCES actions (tenant_id, id)""",
    """CREATE UNIQUE INDEX warrants_one_live_effect ON warrants (tenant_id, action_id)
        WHERE revoked_at IS NULL AND claimed_at IS NULL AND action_id IS NOT NULL""",
    # Which connectors an assistant may name.
    "ALTER TABLE assistants ADD COLUMN connectors text[] NOT NULL DEFAULT '{}'",
    # A run that waits for people: paused in its sandbox, or ended and to be gone on with (its next attempt's extra inputs).
    "ALTER TABLE runs ADD COLUMN waiting text CHECK (waiting IN ('paused', 'suspended')), ADD COLUMN continuation jsonb",
)
TENANT_TABLES = (
    "assistant_keys", "secrets", "connectors", "action_sets", "actions", "effect_attempts", "questions", "run_states",
)  # fmt: skip

FIND_KEY = definer_function(
    "find_assistant_key(wanted_hash text) RETURNS uuid LANGUAGE sql STABLE",
    "SELECT tenant_id FROM assistant_keys WHERE key_hash = wanted_hash",
    to="awgp_app",
)


def upgrade() -> None:
    """Create the tables with their policies."""
    op.execute("GRANT CREATE ON SCHEMA public TO awgp_finder")
    for statement in TABLES:
        op.execute(statement)
    for table in TENANT_TABLES:
        for statement in tenant_table(table):
            op.execute(statement)
    for statement in [*system_finds("actions"), *finder_reads("assistant_keys"), *FIND_KEY]:
        op.execute(statement)
    op.execute("REVOKE DELETE ON actions, action_sets, effect_attempts, assistant_keys, questions, connectors FROM awgp_app")
    op.execute("REVOKE CREATE ON SCHEMA public FROM awgp_finder")


def downgrade() -> None:
    """What was asked of people and done for agents is never dropped by a migration."""
