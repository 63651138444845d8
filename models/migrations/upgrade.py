"""`python -m models.migrations.upgrade`: bring the database to the newest revision."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config


def upgrade(owner_url: str, revision: str = "head") -> None:
    """Apply the pending revisions as the owner.

    Args:
        owner_url: SQLAlchemy URL (`postgresql+psycopg://…`) of the `awgp_owner` role.
        revision: The target; `head` is the newest.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["url"] = owner_url
    command.upgrade(config, revision)


if __name__ == "__main__":
    from models.settings import Settings

    upgrade(Settings().secret("database_owner_url"))
