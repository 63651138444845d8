"""The row-level security statements every migration of a tenant table issues.

Sources: PostgreSQL manual, "Row Security Policies"; `docs/decisions/0003-tenancy-by-row-level-security.md`.
"""

from __future__ import annotations

OWN_TENANT = "tenant_id = (select nullif(current_setting('app.current_tenant', true), '')::uuid)"
HOLDING_SIGHT = "tenant_id = any((select visible_tenants())::uuid[])"


def tenant_table(table: str, *, grants: str = "SELECT, INSERT, UPDATE, DELETE") -> list[str]:
    """Statements that close `table` to all but its own tenant and the holding's sight of it.

    INVARIANT: a tenant table has exactly these two policies for `awgp_app`; the holding's is FOR SELECT,
    so nothing can be locked or written through it.
    """
    return [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY own_tenant ON {table} TO awgp_app USING ({OWN_TENANT}) WITH CHECK ({OWN_TENANT})",
        f"CREATE POLICY holding_sight ON {table} FOR SELECT TO awgp_app USING ({HOLDING_SIGHT})",
        f"CREATE POLICY owner_migrates ON {table} TO awgp_owner USING ({OWN_TENANT}) WITH CHECK ({OWN_TENANT})",
        f"GRANT {grants} ON {table} TO awgp_app",
    ]


def system_finds(table: str) -> list[str]:
    """Let the dispatching role see (never write) the open rows of every tenant in `table`."""
    return [
        f"CREATE POLICY system_finds ON {table} FOR SELECT TO awgp_system USING (true)",
        f"GRANT SELECT ON {table} TO awgp_system",
    ]


def finder_reads(table: str) -> list[str]:
    """Let the definer functions (owned by the NOLOGIN role) look a tenant up in `table`."""
    return [
        f"CREATE POLICY finder_reads ON {table} FOR SELECT TO awgp_finder USING (true)",
        f"GRANT SELECT ON {table} TO awgp_finder",
    ]


def definer_function(signature: str, body: str, *, to: str = "awgp_app, awgp_system") -> list[str]:
    """A SECURITY DEFINER function owned by `awgp_finder`, with a fixed search path, callable by `to` alone.

    Args:
        signature: e.g. `find_tenant(slug text) RETURNS uuid LANGUAGE sql STABLE`.
        body: The function's body without its quotes.
        to: The roles that may execute it.
    """
    name = signature.split(" RETURNS", 1)[0]
    return [
        f"CREATE FUNCTION {signature} SECURITY DEFINER SET search_path = pg_catalog, public AS $fn${body}$fn$",
        f"ALTER FUNCTION {name} OWNER TO awgp_finder",
        f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION {name} TO {to}",
    ]
