"""The hash-chained audit trail (partitioned by month), the outbox and the record of operations."""

from __future__ import annotations

from alembic import op

from models.migrations.rls import definer_function, tenant_table

revision = "0005"
down_revision = "0004"

TABLES = (
    """CREATE TABLE audit_heads (
        tenant_id uuid PRIMARY KEY REFERENCES tenants, seq bigint NOT NULL DEFAULT 0, hash text NOT NULL DEFAULT '')""",
    """CREATE TABLE audit_events (
        tenant_id uuid NOT NULL, seq bigint NOT NULL, occurred_at timestamptz NOT NULL, kind text NOT NULL,
        actor_tenant_id uuid, actor_id text NOT NULL, actor_name text NOT NULL, work_item_id uuid, subject text NOT NULL,
        summary text NOT NULL, data jsonb NOT NULL, prev_hash text NOT NULL, hash text NOT NULL,
        PRIMARY KEY (tenant_id, seq, occurred_at)) PARTITION BY RANGE (occurred_at)""",
    "CREATE INDEX audit_events_item ON audit_events (tenant_id, work_item_id, seq)",
    "CREATE TABLE audit_events_default PARTITION OF audit_events DEFAULT",
    """CREATE FUNCTION audit_events_are_final() RETURNS trigger LANGUAGE plpgsql AS $fn$
        BEGIN RAISE EXCEPTION 'audit events are append-only' USING ERRCODE = '42501'; END $fn$""",
    """CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE ON audit_events
        FOR EACH ROW EXECUTE FUNCTION audit_events_are_final()""",
    """CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON audit_events
        FOR EACH STATEMENT EXECUTE FUNCTION audit_events_are_final()""",
    """CREATE TABLE outbox (
        tenant_id uuid NOT NULL REFERENCES tenants, id uuid NOT NULL, kind text NOT NULL, payload jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(), due_at timestamptz NOT NULL DEFAULT now(), attempts integer NOT NULL DEFAULT 0,
        last_error text, done_at timestamptz, PRIMARY KEY (tenant_id, id))""",
    "CREATE INDEX outbox_due ON outbox (due_at) WHERE done_at IS NULL",
    """CREATE TABLE operations (
        tenant_id uuid NOT NULL REFERENCES tenants, op_id text NOT NULL, answer jsonb, created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, op_id))""",
    "CREATE TABLE noise (kind text NOT NULL, day date NOT NULL, seen bigint NOT NULL, PRIMARY KEY (kind, day))",
)

# Months are made ahead (this one and three more); what falls outside lands in the default partition. A partition is
# never granted: the application reaches the rows through the parent, where the policies stand.
MAKE_PARTITIONS = """
DECLARE month date; name text;
BEGIN
  FOR ahead IN 0..3 LOOP
    month := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => ahead))::date;
    name := 'audit_events_' || to_char(month, 'YYYY_MM');
    IF to_regclass('public.' || name) IS NULL THEN
      -- A month that began before its partition was made has its events in the default one, and keeps them there.
      BEGIN
        EXECUTE format('CREATE TABLE public.%I PARTITION OF public.audit_events FOR VALUES FROM (%L) TO (%L)',
          name, month::timestamp AT TIME ZONE 'UTC', (month + interval '1 month')::timestamp AT TIME ZONE 'UTC');
      EXCEPTION WHEN check_violation THEN CONTINUE;
      END;
      EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', name);
      EXECUTE format('ALTER TABLE public.%I FORCE ROW LEVEL SECURITY', name);
    END IF;
  END LOOP;
END"""


def upgrade() -> None:
    """Create the tables; the partitions' function belongs to the owner, who alone can make a table."""
    op.execute("GRANT CREATE ON SCHEMA public TO awgp_finder")
    for statement in TABLES:
        op.execute(statement)
    op.execute("ALTER TABLE audit_events_default ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE audit_events_default FORCE ROW LEVEL SECURITY")
    for table, grants in (
        ("audit_heads", "SELECT, INSERT, UPDATE"),
        ("audit_events", "SELECT, INSERT"),
        ("outbox", "SELECT, INSERT, UPDATE"),
        ("operations", "SELECT, INSERT, UPDATE"),
    ):
        for statement in tenant_table(table, grants=grants):
            op.execute(statement)
    op.execute(
        "CREATE FUNCTION make_audit_partitions() RETURNS void LANGUAGE plpgsql SECURITY DEFINER"
        f" SET search_path = pg_catalog, public AS $fn${MAKE_PARTITIONS}$fn$"
    )
    op.execute("REVOKE ALL ON FUNCTION make_audit_partitions() FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION make_audit_partitions() TO awgp_app, awgp_system")
    op.execute("SELECT make_audit_partitions()")
    # The relay takes entries of every tenant and marks them; it cannot write one.
    op.execute("CREATE POLICY system_dispatches ON outbox TO awgp_system USING (true) WITH CHECK (true)")
    op.execute("GRANT SELECT, UPDATE ON outbox TO awgp_system")
    op.execute("GRANT SELECT, INSERT, UPDATE ON noise TO awgp_finder")
    for statement in definer_function(
        "count_noise(what text, many bigint) RETURNS void LANGUAGE sql",
        """INSERT INTO noise VALUES (what, (now() AT TIME ZONE 'UTC')::date, greatest(many, 0))
           ON CONFLICT (kind, day) DO UPDATE SET seen = noise.seen + excluded.seen""",
    ):
        op.execute(statement)
    op.execute("REVOKE CREATE ON SCHEMA public FROM awgp_finder")


def downgrade() -> None:
    """An audit trail is never dropped by a migration."""
    raise RuntimeError("the audit trail is not dropped by a migration; make reset forgets the installation")
