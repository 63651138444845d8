"""Budgets, their windows, reservations and charges; the everything-budget behind named functions."""

from __future__ import annotations

from alembic import op

from models.migrations.rls import definer_function, system_finds, tenant_table

revision = "0003"
down_revision = "0002"

TABLES = (
    """CREATE TABLE budgets (
        tenant_id uuid NOT NULL REFERENCES tenants, id uuid NOT NULL,
        scope text NOT NULL CHECK (scope IN ('assistant', 'tenant')), assistant_id uuid,
        window_kind text NOT NULL CHECK (window_kind IN ('day', 'month', 'lifetime')),
        limit_nano bigint NOT NULL CHECK (limit_nano >= 0), updated_by text NOT NULL DEFAULT '',
        created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, id), CHECK ((scope = 'assistant') = (assistant_id IS NOT NULL)),
        FOREIGN KEY (tenant_id, assistant_id) REFERENCES assistants (tenant_id, id))""",
    """CREATE UNIQUE INDEX budgets_one ON budgets
        (tenant_id, scope, coalesce(assistant_id, '00000000-0000-0000-0000-000000000000'::uuid), window_kind)""",
    """CREATE TABLE budget_windows (
        tenant_id uuid NOT NULL, budget_id uuid NOT NULL, window_key text NOT NULL,
        spent_nano bigint NOT NULL DEFAULT 0 CHECK (spent_nano >= 0),
        reserved_nano bigint NOT NULL DEFAULT 0 CHECK (reserved_nano >= 0),
        waiting_nano bigint NOT NULL DEFAULT 0 CHECK (waiting_nano >= 0 AND waiting_nano <= reserved_nano),
        PRIMARY KEY (tenant_id, budget_id, window_key),
        FOREIGN KEY (tenant_id, budget_id) REFERENCES budgets (tenant_id, id))""",
    """CREATE TABLE reservations (
        tenant_id uuid NOT NULL, id uuid NOT NULL, work_item_id uuid NOT NULL,
        amount_nano bigint NOT NULL CHECK (amount_nano >= 0),
        phase text NOT NULL CHECK (phase IN ('waiting', 'claimed', 'settled', 'released')), charged_nano bigint NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL DEFAULT now(), ended_at timestamptz, PRIMARY KEY (tenant_id, id),
        CHECK (charged_nano <= amount_nano),
        FOREIGN KEY (tenant_id, work_item_id) REFERENCES work_items (tenant_id, id))""",
    """CREATE UNIQUE INDEX reservations_one_live ON reservations (tenant_id, work_item_id)
        WHERE phase IN ('waiting', 'claimed')""",
    """CREATE TABLE reservation_lines (
        tenant_id uuid NOT NULL, reservation_id uuid NOT NULL, budget_id uuid NOT NULL, window_key text NOT NULL,
        PRIMARY KEY (tenant_id, reservation_id, budget_id),
        FOREIGN KEY (tenant_id, reservation_id) REFERENCES reservations (tenant_id, id),
        FOREIGN KEY (tenant_id, budget_id, window_key) REFERENCES budget_windows (tenant_id, budget_id, window_key))""",
    """CREATE TABLE charges (
        tenant_id uuid NOT NULL, id uuid NOT NULL, reservation_id uuid NOT NULL, work_item_id uuid NOT NULL,
        kind text NOT NULL, amount_nano bigint NOT NULL CHECK (amount_nano >= 0), detail jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (tenant_id, id),
        FOREIGN KEY (tenant_id, reservation_id) REFERENCES reservations (tenant_id, id))""",
    """CREATE TABLE everything_budgets (
        window_kind text PRIMARY KEY CHECK (window_kind IN ('day', 'month', 'lifetime')),
        limit_nano bigint NOT NULL CHECK (limit_nano >= 0), updated_by text NOT NULL DEFAULT '', updated_at timestamptz NOT NULL DEFAULT now())""",
    """CREATE TABLE everything_windows (
        window_kind text NOT NULL REFERENCES everything_budgets, window_key text NOT NULL,
        spent_nano bigint NOT NULL DEFAULT 0 CHECK (spent_nano >= 0), reserved_nano bigint NOT NULL DEFAULT 0 CHECK (reserved_nano >= 0),
        waiting_nano bigint NOT NULL DEFAULT 0 CHECK (waiting_nano >= 0 AND waiting_nano <= reserved_nano),
        PRIMARY KEY (window_kind, window_key))""",
    # Which everything-window a reservation counts in; a row of the tenant, its budget is global.
    """CREATE TABLE reservation_everything_lines (
        tenant_id uuid NOT NULL, reservation_id uuid NOT NULL, window_kind text NOT NULL, window_key text NOT NULL,
        PRIMARY KEY (tenant_id, reservation_id, window_kind),
        FOREIGN KEY (tenant_id, reservation_id) REFERENCES reservations (tenant_id, id),
        FOREIGN KEY (window_kind, window_key) REFERENCES everything_windows)""",
)
TENANT_TABLES = ("budgets", "budget_windows", "reservations", "reservation_lines", "charges", "reservation_everything_lines")

FUNCTIONS = (
    definer_function(
        "set_everything_budget(kind text, new_limit bigint, who text) RETURNS void LANGUAGE plpgsql",
        """BEGIN
             IF NOT EXISTS (SELECT 1 FROM tenants WHERE kind = 'holding'
                AND tenant_id = nullif(current_setting('app.current_tenant', true), '')::uuid) THEN
               RAISE EXCEPTION 'only the holding sets the budget of everything' USING ERRCODE = '42501'; END IF;
             INSERT INTO everything_budgets (window_kind, limit_nano, updated_by) VALUES (kind, new_limit, who)
             ON CONFLICT (window_kind) DO UPDATE SET limit_nano = excluded.limit_nano, updated_by = excluded.updated_by, updated_at = now();
           END""".replace("WHERE kind = 'holding'", "WHERE tenants.kind = 'holding'"),
        to="awgp_app",
    ),
    # Adds to a window, or answers false when the limit, or the waiting share, would be passed. The row lock that the
    # UPDATE takes is the order among concurrent holds; callers come in the order lifetime, month, day.
    definer_function(
        "hold_everything(kind text, key text, amount bigint, waiting boolean, waiting_share_ppm bigint)"
        " RETURNS boolean LANGUAGE plpgsql",
        """DECLARE found_row boolean;
           BEGIN
             IF amount < 0 THEN RAISE EXCEPTION 'a hold is not negative'; END IF;
             INSERT INTO everything_windows (window_kind, window_key) VALUES (kind, key) ON CONFLICT DO NOTHING;
             UPDATE everything_windows w SET reserved_nano = w.reserved_nano + amount,
                 waiting_nano = w.waiting_nano + CASE WHEN waiting THEN amount ELSE 0 END
               FROM everything_budgets b WHERE b.window_kind = w.window_kind AND w.window_kind = kind AND w.window_key = key
                 AND w.spent_nano::numeric + w.reserved_nano + amount <= b.limit_nano
                 AND (NOT waiting OR (w.waiting_nano + amount)::numeric * 1000000 <= b.limit_nano::numeric * waiting_share_ppm)
               RETURNING true INTO found_row;
             RETURN coalesce(found_row, false);
           END""",
        to="awgp_app",
    ),
    definer_function(
        "free_everything(kind text, key text, amount bigint, waiting boolean, spent bigint) RETURNS void LANGUAGE plpgsql",
        """BEGIN
             IF NOT (0 <= spent AND spent <= amount) THEN RAISE EXCEPTION 'more is spent than was held'; END IF;
             UPDATE everything_windows SET reserved_nano = reserved_nano - amount,
               waiting_nano = waiting_nano - CASE WHEN waiting THEN amount ELSE 0 END, spent_nano = spent_nano + spent
             WHERE window_kind = kind AND window_key = key;
           END""",
        to="awgp_app",
    ),
    definer_function(
        "claim_everything(kind text, key text, amount bigint) RETURNS void LANGUAGE plpgsql",
        """BEGIN
             IF amount < 0 THEN RAISE EXCEPTION 'a hold is not negative'; END IF;
             UPDATE everything_windows SET waiting_nano = waiting_nano - amount WHERE window_kind = kind AND window_key = key;
           END""",
        to="awgp_app",
    ),
)


def upgrade() -> None:
    """Create the money tables; charges are an immutable ledger."""
    op.execute("GRANT CREATE ON SCHEMA public TO awgp_finder")
    for statement in TABLES:
        op.execute(statement)
    op.execute("GRANT SELECT, INSERT, UPDATE ON everything_budgets, everything_windows TO awgp_finder")
    for function in FUNCTIONS:
        for statement in function:
            op.execute(statement)
    for table in TENANT_TABLES:
        for statement in tenant_table(table):
            op.execute(statement)
    for statement in system_finds("reservations"):
        op.execute(statement)
    op.execute("REVOKE UPDATE, DELETE ON charges FROM awgp_app")
    op.execute("REVOKE DELETE ON budget_windows, reservations FROM awgp_app")
    op.execute("GRANT SELECT ON everything_budgets, everything_windows TO awgp_app, awgp_system")
    op.execute("REVOKE CREATE ON SCHEMA public FROM awgp_finder")


def downgrade() -> None:
    """Drop what this revision made."""
    for signature in ("claim_everything(text, text, bigint)", "free_everything(text, text, bigint, boolean, bigint)",
                      "hold_everything(text, text, bigint, boolean, bigint)", "set_everything_budget(text, bigint, text)"):
        op.execute(f"DROP FUNCTION {signature}")
    for table in (*reversed(TENANT_TABLES), "everything_windows", "everything_budgets"):
        op.execute(f"DROP TABLE {table}")
