"""Model calls: rate cards, what of a reservation was opened in Redis, and the immutable ledger of calls."""

from __future__ import annotations

from alembic import op

from models.migrations.rls import definer_function, system_finds, tenant_table

revision = "0008"
down_revision = "0007"

TABLES = (
    # Global: a price is the same for everyone. Never changed: a new price is a new version with its own date.
    """CREATE TABLE rate_cards (
        model text NOT NULL, version integer NOT NULL CHECK (version > 0), effective_from timestamptz NOT NULL,
        card jsonb NOT NULL, digest text NOT NULL, source text NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (model, version))""",
    """CREATE TABLE llm_openings (
        tenant_id uuid NOT NULL, reservation_id uuid NOT NULL, work_item_id uuid NOT NULL, run_id uuid NOT NULL,
        assistant_id uuid NOT NULL, grant_nano bigint NOT NULL CHECK (grant_nano >= 0), redis_run_id text NOT NULL,
        opened_at timestamptz NOT NULL DEFAULT now(), closed_at timestamptz,
        PRIMARY KEY (tenant_id, reservation_id),
        FOREIGN KEY (tenant_id, reservation_id) REFERENCES reservations (tenant_id, id),
        FOREIGN KEY (tenant_id, work_item_id) REFERENCES work_items (tenant_id, id))""",
    "CREATE INDEX llm_openings_open ON llm_openings (opened_at) WHERE closed_at IS NULL",
    """CREATE TABLE llm_charges (
        tenant_id uuid NOT NULL, call_id uuid NOT NULL, attempt integer NOT NULL DEFAULT 1 CHECK (attempt > 0),
        reservation_id uuid NOT NULL, work_item_id uuid NOT NULL, run_id uuid NOT NULL, assistant_id uuid NOT NULL,
        model text NOT NULL, card_version integer, prices jsonb NOT NULL, tokens jsonb NOT NULL,
        held_nano bigint NOT NULL CHECK (held_nano >= 0), amount_nano bigint NOT NULL CHECK (amount_nano >= 0),
        kind text NOT NULL CHECK (kind IN ('final', 'estimated', 'unaccounted')),
        upstream_id text, upstream_status integer, streamed boolean NOT NULL DEFAULT false, detail text NOT NULL DEFAULT '',
        started_at timestamptz NOT NULL, ended_at timestamptz NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
        -- INVARIANT: one charge a (call, attempt), however often its settlement is repeated.
        PRIMARY KEY (tenant_id, call_id, attempt), CHECK (amount_nano <= held_nano OR kind = 'final'),
        FOREIGN KEY (tenant_id, reservation_id) REFERENCES reservations (tenant_id, id),
        FOREIGN KEY (tenant_id, work_item_id) REFERENCES work_items (tenant_id, id))""",
    "CREATE INDEX llm_charges_reservation ON llm_charges (tenant_id, reservation_id)",
    "CREATE INDEX llm_charges_item ON llm_charges (tenant_id, work_item_id, started_at)",
    # What an assistant may spend on models, which, and how fast; {} grants nothing.
    "ALTER TABLE assistants ADD COLUMN llm jsonb NOT NULL DEFAULT '{}'",
)
TENANT_TABLES = ("llm_openings", "llm_charges")

ADD_RATE_CARD = definer_function(
    "add_rate_card(of_model text, since timestamptz, new_card jsonb, new_digest text, from_source text)"
    " RETURNS integer LANGUAGE plpgsql",
    """DECLARE newest rate_cards%ROWTYPE;
       BEGIN
         PERFORM pg_advisory_xact_lock(hashtext('rate_cards'), hashtext(of_model));
         SELECT * INTO newest FROM rate_cards WHERE model = of_model ORDER BY version DESC LIMIT 1;
         IF newest.digest = new_digest THEN RETURN newest.version; END IF;
         INSERT INTO rate_cards (model, version, effective_from, card, digest, source)
         VALUES (of_model, coalesce(newest.version, 0) + 1, greatest(since, coalesce(newest.effective_from, since)),
                 new_card, new_digest, from_source);
         RETURN coalesce(newest.version, 0) + 1;
       END""",
)


def upgrade() -> None:
    """Create the tables; the ledger is only ever added to."""
    op.execute("GRANT CREATE ON SCHEMA public TO awgp_finder")
    for statement in TABLES:
        op.execute(statement)
    for table in TENANT_TABLES:
        for statement in tenant_table(table):
            op.execute(statement)
    for statement in system_finds("llm_openings"):
        op.execute(statement)
    op.execute("REVOKE UPDATE, DELETE ON llm_charges FROM awgp_app")
    op.execute("REVOKE DELETE ON llm_openings FROM awgp_app")
    op.execute("GRANT SELECT ON rate_cards TO awgp_app, awgp_system")
    op.execute("GRANT SELECT, INSERT ON rate_cards TO awgp_finder")
    for statement in ADD_RATE_CARD:
        op.execute(statement)
    op.execute("REVOKE CREATE ON SCHEMA public FROM awgp_finder")


def downgrade() -> None:
    """Drop what this revision made."""
    op.execute("DROP FUNCTION add_rate_card(text, timestamptz, jsonb, text, text)")
    op.execute("ALTER TABLE assistants DROP COLUMN llm")
    for table in (*reversed(TENANT_TABLES), "rate_cards"):
        op.execute(f"DROP TABLE {table}")
