from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import String, create_engine, pool
from sqlmodel import AutoString, SQLModel

from models import tables
from models.migrations.upgrade import upgrade
from tests.fixtures.postgres import TestDatabase


def _include(_object: Any, name: str | None, kind: str, _reflected: bool, _compare_to: Any) -> bool:
    """Constraints and indexes are the migrations' alone; partitions and counters have no model."""
    if kind == "table":
        return name is not None and not name.startswith("audit_events_") and name not in ("noise", "alembic_version")
    return kind == "column"


def _type_differs(_context: Any, _there: Any, _column: Any, there: Any, modelled: Any) -> bool | None:
    """SQLModel says VARCHAR where we write text; to PostgreSQL they are the same."""
    return False if isinstance(there, String) and isinstance(modelled, AutoString) else None


def _differences(url: str) -> list[Any]:
    engine = create_engine(url, poolclass=pool.NullPool)
    options: Mapping[str, Any] = {"include_object": _include, "compare_type": _type_differs}
    assert tables.__all__, "importing them put them on the metadata"
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection, opts=dict(options)), SQLModel.metadata)
    engine.dispose()
    return [difference for difference in found if not _is_constraint(difference)]


def _is_constraint(difference: Any) -> bool:
    return isinstance(difference, tuple) and str(difference[0]).split("_", 1)[1] in ("fk", "index", "constraint")


def test_the_models_are_what_the_migrations_made(database: TestDatabase) -> None:
    assert _differences(database.owner_url) == []


def test_control_a_column_that_the_models_do_not_know_is_found(database: TestDatabase) -> None:
    with database.admin() as admin:
        admin.execute("alter table work_items add column forgotten text, alter column title drop not null")
    assert len(_differences(database.owner_url)) == 2


def test_upgrading_again_changes_nothing(database: TestDatabase) -> None:
    upgrade(database.owner_url)
    assert _differences(database.owner_url) == []
