"""Alembic's environment: migrations run as `awgp_owner`, in one transaction each."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, pool
from sqlmodel import SQLModel

from models import tables

assert tables, "importing them registers every table on the metadata"


def run() -> None:
    """Run the pending migrations over the connection or URL that `models.migrations.upgrade` passes."""
    engine = create_engine(context.config.attributes["url"], poolclass=pool.NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=SQLModel.metadata, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()


run()
