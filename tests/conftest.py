"""Real PostgreSQL and Valkey for every test that asks for them; see tests/fixtures."""

from __future__ import annotations

# A module stands after those that it imports, or its asserts would not be rewritten.
pytest_plugins = [
    "tests.fixtures.companies",
    "tests.fixtures.one_stack",
    "tests.fixtures.postgres",
    "tests.fixtures.receiver",
    "tests.fixtures.valkey",
    "tests.fixtures.work",
    "tests.fixtures.effects",
]
