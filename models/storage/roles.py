"""The database roles, created once by a superuser before the first migration.

`awgp_owner` owns the schema and migrates; `awgp_app` acts inside one tenant; `awgp_system` finds open rows;
`awgp_finder` cannot log in and owns the definer functions. INVARIANT: none is a superuser or BYPASSRLS.
"""

from __future__ import annotations

from psycopg import Connection, sql

LOGIN_ROLES = ("awgp_owner", "awgp_app", "awgp_system")
_SAFE = sql.SQL("NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE")


def create_roles(admin: Connection[tuple[object, ...]], passwords: dict[str, str]) -> None:
    """Create or update the roles; safe to repeat.

    Args:
        admin: A superuser's connection in autocommit.
        passwords: One for each of `LOGIN_ROLES`.
    """
    for role in (*LOGIN_ROLES, "awgp_finder"):
        exists = admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
        verb = sql.SQL("ALTER" if exists else "CREATE")
        login = (
            sql.SQL("NOLOGIN")
            if role == "awgp_finder"
            else sql.SQL("LOGIN PASSWORD {}").format(passwords[role])
        )
        admin.execute(sql.SQL("{} ROLE {} {} {}").format(verb, sql.Identifier(role), login, _SAFE))
    # The owner hands its definer functions to the finder; that takes membership.
    admin.execute("GRANT awgp_finder TO awgp_owner")


def create_database(admin: Connection[tuple[object, ...]], name: str = "awgp") -> None:
    """Create the database, owned by `awgp_owner`, closed to PUBLIC; safe to repeat."""
    if admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
        admin.execute(
            sql.SQL("CREATE DATABASE {} OWNER awgp_owner ENCODING 'UTF8' TEMPLATE template0").format(
                sql.Identifier(name)
            )
        )
    admin.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
    admin.execute(
        sql.SQL("GRANT CONNECT ON DATABASE {} TO awgp_app, awgp_system").format(sql.Identifier(name))
    )
