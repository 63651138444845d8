"""`python -m workers.setup`: bring a PostgreSQL and a Redis server to where the processes can start. Safe to repeat.

Creates the roles and the database, migrates, seeds, writes rate cards. Needs the superuser's URL, which no other
process is given.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg

from models.migrations.upgrade import upgrade
from models.services import seed
from models.settings import Settings
from models.storage.roles import create_database, create_roles
from workers import prices


def _plain(url: str, database: str) -> str:
    """A libpq URL of SQLAlchemy's, with another database."""
    parts = urlsplit(url.replace("postgresql+psycopg://", "postgresql://", 1))
    return urlunsplit(parts._replace(path=f"/{database}"))


def _password(url: str) -> str:
    return unquote(urlsplit(url).password or "")


def prepare_database(settings: Settings) -> None:
    """Create roles and database as the superuser, then migrate as the owner."""
    admin_url = settings.secret("database_admin_url")
    owner_url = settings.secret("database_owner_url")
    passwords = {
        "awgp_owner": _password(owner_url),
        "awgp_app": _password(settings.secret("database_app_url")),
        "awgp_system": _password(settings.secret("database_system_url")),
    }
    with psycopg.connect(_plain(admin_url, "postgres"), autocommit=True, connect_timeout=10) as admin:
        create_roles(admin, passwords)
        create_database(admin)
    with psycopg.connect(_plain(admin_url, "awgp"), autocommit=True, connect_timeout=10) as admin:
        admin.execute("ALTER SCHEMA public OWNER TO awgp_owner")
    upgrade(owner_url)


def main() -> None:
    """Prepare the database, then write the seed file's tenants and people, and the prices of models."""
    prepare_database(Settings())
    seed.main()
    prices.main()


if __name__ == "__main__":
    main()
