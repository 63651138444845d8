"""Tenants, principals, assistants, policies: who is who, each row closed to all but its tenant."""

from __future__ import annotations

from alembic import op

from models.migrations.rls import definer_function, finder_reads, system_finds, tenant_table

revision = "0001"
down_revision = None

TABLES = (
    """CREATE TABLE tenants (
        tenant_id uuid PRIMARY KEY, slug text NOT NULL UNIQUE, name text NOT NULL,
        kind text NOT NULL CHECK (kind IN ('holding', 'subsidiary')),
        parent_tenant_id uuid REFERENCES tenants, created_at timestamptz NOT NULL DEFAULT now(),
        CHECK ((kind = 'subsidiary') = (parent_tenant_id IS NOT NULL)))""",
    """CREATE TABLE principals (
        tenant_id uuid NOT NULL REFERENCES tenants, id uuid NOT NULL,
        kind text NOT NULL CHECK (kind IN ('user', 'assistant', 'service')),
        issuer text NOT NULL, subject text NOT NULL, username text NOT NULL, display_name text NOT NULL, email text,
        roles text[] NOT NULL DEFAULT '{}', created_at timestamptz NOT NULL DEFAULT now(), last_seen_at timestamptz,
        PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, issuer, subject))""",
    """CREATE TABLE assistants (
        tenant_id uuid NOT NULL REFERENCES tenants, id uuid NOT NULL, slug text NOT NULL, name text NOT NULL,
        description text NOT NULL DEFAULT '', owner_id uuid, image text NOT NULL, command jsonb, env jsonb NOT NULL DEFAULT '{}',
        restartable boolean NOT NULL DEFAULT false, limits jsonb NOT NULL DEFAULT '{}', tools text[] NOT NULL DEFAULT '{}',
        enabled boolean NOT NULL DEFAULT true, version integer NOT NULL DEFAULT 1,
        succeeded_count integer NOT NULL DEFAULT 0, failed_count integer NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, slug),
        FOREIGN KEY (tenant_id, owner_id) REFERENCES principals (tenant_id, id))""",
    """CREATE TABLE policy_versions (
        tenant_id uuid NOT NULL REFERENCES tenants, id uuid NOT NULL, version integer NOT NULL, digest text NOT NULL,
        source text NOT NULL, created_by uuid, created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, version))""",
    """CREATE TABLE webhooks (
        tenant_id uuid NOT NULL REFERENCES tenants, id uuid NOT NULL, url text NOT NULL, secret text NOT NULL,
        events text[] NOT NULL DEFAULT '{}', enabled boolean NOT NULL DEFAULT true,
        created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (tenant_id, id))""",
    """CREATE TABLE halts (
        scope text NOT NULL CHECK (scope IN ('everything', 'tenant', 'assistant')), key text NOT NULL,
        epoch bigint NOT NULL DEFAULT 0, active boolean NOT NULL DEFAULT false,
        mode text NOT NULL DEFAULT 'kill' CHECK (mode IN ('kill', 'hold')), reason text NOT NULL DEFAULT '',
        changed_by text NOT NULL DEFAULT '', changed_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (scope, key))""",
)

FUNCTIONS = (
    definer_function(
        "visible_tenants() RETURNS uuid[] LANGUAGE sql STABLE",
        """SELECT coalesce(array_agg(t.tenant_id), '{}') FROM tenants t
           WHERE t.parent_tenant_id = nullif(current_setting('app.current_tenant', true), '')::uuid""",
        to="awgp_app",
    ),
    definer_function(
        "find_tenant(wanted_slug text) RETURNS uuid LANGUAGE sql STABLE",
        "SELECT tenant_id FROM tenants WHERE slug = wanted_slug",
    ),
    definer_function(
        "is_holding_of(holding uuid, subsidiary uuid) RETURNS boolean LANGUAGE sql STABLE",
        "SELECT EXISTS (SELECT 1 FROM tenants WHERE tenant_id = subsidiary AND parent_tenant_id = holding)",
    ),
    # The halt's key is 'everything', the tenant's id or 'tenant/assistant'. The caller's tenant comes from the bound
    # transaction, never from an argument, so that a tenant can halt itself or what it holds and nothing else.
    definer_function(
        "set_halt(wanted_scope text, target uuid, assistant uuid, wanted_active boolean, wanted_mode text, why text, who text)"
        " RETURNS bigint LANGUAGE plpgsql",
        """DECLARE caller uuid := nullif(current_setting('app.current_tenant', true), '')::uuid; result bigint; halt_key text;
             known halts; is_holding boolean;
           BEGIN
             IF caller IS NULL THEN RAISE EXCEPTION 'no tenant is bound' USING ERRCODE = '42501'; END IF;
             is_holding := EXISTS (SELECT 1 FROM tenants WHERE tenant_id = caller AND kind = 'holding');
             IF wanted_scope = 'everything' THEN
               IF NOT is_holding THEN
                 RAISE EXCEPTION 'only the holding halts everything' USING ERRCODE = '42501'; END IF;
               halt_key := 'everything';
             ELSE
               IF target <> caller AND NOT EXISTS
                 (SELECT 1 FROM tenants WHERE tenant_id = target AND parent_tenant_id = caller) THEN
                 RAISE EXCEPTION 'the tenant is not the caller''s' USING ERRCODE = '42501'; END IF;
               halt_key := CASE wanted_scope WHEN 'tenant' THEN target::text ELSE target::text || '/' || assistant::text END;
             END IF;
             -- INVARIANT: what the holding has halted, the holding alone changes: neither lifted nor made milder.
             SELECT * INTO known FROM halts WHERE scope = wanted_scope AND key = halt_key FOR UPDATE;
             IF known.active AND NOT is_holding AND NOT starts_with(known.changed_by, caller::text || '/') THEN
               RAISE EXCEPTION 'only the holding changes what it has halted' USING ERRCODE = '42501'; END IF;
             INSERT INTO halts (scope, key, epoch, active, mode, reason, changed_by, changed_at)
               VALUES (wanted_scope, halt_key, CASE WHEN wanted_active THEN 1 ELSE 0 END, wanted_active, wanted_mode, why,
                 caller::text || '/' || who, clock_timestamp())
             ON CONFLICT (scope, key) DO UPDATE SET
               epoch = halts.epoch + CASE WHEN excluded.active THEN 1 ELSE 0 END, active = excluded.active,
               mode = excluded.mode, reason = excluded.reason, changed_by = excluded.changed_by, changed_at = clock_timestamp()
             RETURNING epoch INTO result;
             RETURN result;
           END""",
        to="awgp_app",
    ),
)


def upgrade() -> None:
    """Create the tables, their policies and the functions that find a tenant."""
    op.execute("GRANT USAGE ON SCHEMA public TO awgp_app, awgp_system, awgp_finder")
    op.execute("GRANT CREATE ON SCHEMA public TO awgp_finder")
    for statement in TABLES:
        op.execute(statement)
    for statement in [*finder_reads("tenants"), "GRANT SELECT, INSERT, UPDATE ON halts TO awgp_finder"]:
        op.execute(statement)
    for function in FUNCTIONS:
        for statement in function:
            op.execute(statement)
    for table in ("principals", "assistants", "policy_versions", "webhooks"):
        for statement in tenant_table(table):
            op.execute(statement)
    # Tenants are made by the installation's set-up alone: the application reads them.
    for statement in [*tenant_table("tenants", grants="SELECT"), *system_finds("tenants")]:
        op.execute(statement)
    op.execute("REVOKE UPDATE, DELETE ON policy_versions FROM awgp_app")
    op.execute("GRANT SELECT ON halts TO awgp_app, awgp_system")
    op.execute("REVOKE CREATE ON SCHEMA public FROM awgp_finder")


def downgrade() -> None:
    """There is no way back from the first revision: `make reset` forgets an installation."""
    raise RuntimeError("the first revision cannot be undone; make reset forgets the installation")
