"""The database's own catalogue says that every tenant table is closed; a table that is not is found (controls)."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.fixtures.postgres import TestDatabase

Connection = psycopg.Connection[tuple[object, ...]]

OWN = "(tenant_id = ( SELECT (NULLIF(current_setting('app.current_tenant'::text, true), ''::text))::uuid"
SIGHT = "(tenant_id = ANY (( SELECT visible_tenants() AS visible_tenants)::uuid[]))"

FOUND_BY_SYSTEM = {"tenants", "work_items", "approvals", "runs", "reservations", "llm_openings", "actions"}
"""What the dispatching role sees of every tenant: dispatch tables alone."""
DISPATCHED_BY_SYSTEM = {"outbox"}
FORGOTTEN = {"outbox"}
"""What a definer function deletes from: the old alone."""
OLD = "(done_at < (now() - '30 days'::interval))"
LOOKED_UP = {"tenants", "runtimes", "enrolment_tokens", "assistant_keys"}
"""What definer functions look a tenant up in."""
GLOBAL = {"halts", "rate_cards", "everything_budgets", "everything_windows", "noise", "alembic_version"}
ROLES = ("awgp_owner", "awgp_app", "awgp_system", "awgp_finder")


def tenant_tables(admin: Connection) -> list[str]:
    """Every table or partitioned table with a tenant_id; partitions are looked at on their own."""
    statement = """select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
          and a.attname = 'tenant_id' and not a.attisdropped order by 1"""
    return [str(row[0]) for row in admin.execute(statement)]


def expected_policies(table: str) -> set[tuple[str, str, str]]:
    """(name, command, role) of exactly the policies that the design names for a table."""
    wanted = {
        ("own_tenant", "*", "awgp_app"),
        ("holding_sight", "r", "awgp_app"),
        ("owner_migrates", "*", "awgp_owner"),
    }
    if table in FOUND_BY_SYSTEM:
        wanted.add(("system_finds", "r", "awgp_system"))
    if table in DISPATCHED_BY_SYSTEM:
        wanted.add(("system_dispatches", "*", "awgp_system"))
    if table in FORGOTTEN:
        wanted.add(("finder_forgets", "*", "awgp_finder"))
    if table in LOOKED_UP:
        wanted.add(("finder_reads", "r", "awgp_finder"))
    return wanted


def faults(admin: Connection) -> list[str]:
    """Everything in the catalogue that the design does not allow."""
    return [*_table_faults(admin), *_partition_faults(admin), *_role_faults(admin), *_function_faults(admin)]


def _table_faults(admin: Connection) -> list[str]:
    found: list[str] = []
    for table in tenant_tables(admin):
        enabled, forced, owner = admin.execute(
            "select relrowsecurity, relforcerowsecurity, relowner::regrole::text from pg_class"
            " where oid = %s::regclass",
            (table,),
        ).fetchone() or (False, False, "")
        if not (enabled and forced):
            found.append(f"{table}: row-level security is not enabled and forced")
        if owner in ("awgp_app", "awgp_system"):
            found.append(f"{table}: owned by {owner}")
        policies = admin.execute(
            """select polname, polcmd::text, coalesce(polroles::regrole[]::text[], '{}'),
                      pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid), polpermissive
               from pg_policy where polrelid = %s::regclass""",
            (table,),
        ).fetchall()
        there = {(str(name), str(command), ",".join(roles)) for name, command, roles, *_ in policies}  # pyright: ignore
        if there != expected_policies(table):
            found.append(f"{table}: policies {sorted(there)}, expected {sorted(expected_policies(table))}")
        for name, _, _, using, check, permissive in policies:
            found += _expression_faults(table, str(name), str(using), check, permissive)
    for (table,) in admin.execute(
        """select c.relname from pg_class c where c.relnamespace = 'public'::regnamespace
           and c.relkind in ('r', 'p', 'v', 'm') and not c.relispartition
           and not exists (select 1 from pg_attribute a where a.attrelid = c.oid
             and a.attname = 'tenant_id' and not a.attisdropped)"""
    ):
        if table not in GLOBAL:
            found.append(f"{table}: has no tenant_id and is not one of the global tables")
    return found


def _expression_faults(table: str, name: str, using: str, check: object, permissive: object) -> list[str]:
    if name in ("own_tenant", "owner_migrates"):
        good = using.startswith(OWN) and str(check) == using
    elif name == "holding_sight":
        good = using == SIGHT and check is None
    elif name == "finder_forgets":
        good = using == OLD and check == "false"
    else:
        good = using == "true"
    return [] if good and permissive else [f"{table}: policy {name} says {using} / {check}"]


def _partition_faults(admin: Connection) -> list[str]:
    """A granted partition is a way around its parent's policies."""
    rows = admin.execute(
        """select c.relname, c.relrowsecurity and c.relforcerowsecurity,
             exists (select 1 from unnest(array['awgp_app', 'awgp_system', 'awgp_finder']) r(name),
               unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) p(privilege)
               where has_table_privilege(r.name, c.oid, p.privilege))
           from pg_class c
           where c.relispartition and c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace"""
    ).fetchall()
    assert len(rows) >= 5, "the default partition and four months"
    return [f"{name}: a partition is granted or not closed" for name, closed, granted in rows if granted or not closed]


def _role_faults(admin: Connection) -> list[str]:
    rows = admin.execute(
        "select rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication, rolcanlogin"
        " from pg_roles where rolname like 'awgp%'"
    ).fetchall()
    found = [f"{row[0]}: has rights beyond its tables" for row in rows if any(row[1:6])]
    found += [f"{row[0]}: unknown role" for row in rows if row[0] not in ROLES]
    found += [f"{row[0]}: may log in" for row in rows if row[0] == "awgp_finder" and row[6]]
    for table, role in admin.execute(
        """select c.relname, r.name from pg_class c, unnest(array['awgp_app', 'awgp_system', 'awgp_finder']) r(name)
           where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
             and has_table_privilege(r.name, c.oid, 'TRUNCATE')"""
    ):
        found.append(f"{table}: {role} may truncate it")
    return found


def _function_faults(admin: Connection) -> list[str]:
    rows = admin.execute(
        """select p.proname, p.prosecdef, p.proowner::regrole::text, p.proconfig::text,
             exists (select 1 from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0)
           from pg_proc p where p.pronamespace = 'public'::regnamespace"""
    ).fetchall()
    found: list[str] = []
    for name, definer, owner, config, public in rows:
        if not definer:
            continue
        if public or "search_path" not in str(config):
            found.append(f"{name}: open to PUBLIC or without a fixed search path")
        if owner != "awgp_finder" and name != "make_audit_partitions":
            found.append(f"{name}: runs as {owner}")
    return found


@pytest.fixture
def admin(database: TestDatabase) -> Iterator[Connection]:
    with database.admin() as connection:
        yield connection


def test_every_tenant_table_has_exactly_the_designs_policies(admin: Connection) -> None:
    assert len(tenant_tables(admin)) >= 36
    assert faults(admin) == []


BAD = {
    "not forced": ["CREATE TABLE bad (tenant_id uuid)", "ALTER TABLE bad ENABLE ROW LEVEL SECURITY"],
    "no policy": [
        "CREATE TABLE bad (tenant_id uuid)",
        "ALTER TABLE bad ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE bad FORCE ROW LEVEL SECURITY",
    ],
    "one policy too many": ["CREATE POLICY extra ON work_items FOR SELECT TO awgp_app USING (true)"],
    "an open policy": [
        "DROP POLICY own_tenant ON work_items",
        "CREATE POLICY own_tenant ON work_items TO awgp_app USING (true) WITH CHECK (true)",
    ],
    "the holding may write": [
        "DROP POLICY holding_sight ON work_items",
        "CREATE POLICY holding_sight ON work_items TO awgp_app"
        " USING (tenant_id = any((select visible_tenants())::uuid[]))",
    ],
    "what was not carried is forgotten": [
        "DROP POLICY finder_forgets ON outbox",
        "CREATE POLICY finder_forgets ON outbox TO awgp_finder USING (true) WITH CHECK (false)",
    ],
    "forgotten": ["ALTER TABLE approvals NO FORCE ROW LEVEL SECURITY"],
    "a granted partition": ["GRANT SELECT ON audit_events_default TO awgp_app"],
    "a table without a tenant": ["CREATE TABLE bad (id uuid)"],
    "a view": ["CREATE VIEW bad AS SELECT id FROM work_items"],
    "truncate": ["GRANT TRUNCATE ON work_items TO awgp_app"],
    "bypassing role": ["ALTER ROLE awgp_system BYPASSRLS"],
    "an open definer function": [
        "CREATE FUNCTION bad() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'select count(*) from work_items'"
    ],
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD.keys())
def test_control_a_hole_is_found(admin: Connection, change: list[str]) -> None:
    with admin.transaction(force_rollback=True):
        for statement in change:
            admin.execute(statement)  # pyright: ignore[reportArgumentType, reportCallIssue]
        assert faults(admin) != []
    assert faults(admin) == []
