"""Noise is summed in memory and written a kind and day."""

from __future__ import annotations

from models.services.noise import NoiseMeter
from models.storage.db import Database
from tests.fixtures.postgres import TestDatabase


async def test_a_flood_becomes_one_row_a_kind(db: Database, database: TestDatabase) -> None:
    meter = NoiseMeter(db)
    for _ in range(1000):
        meter.count("unauthenticated")
    meter.count("other")
    await meter.close()
    meter.count("unauthenticated")
    await meter.close()
    with database.admin() as admin:
        rows = admin.execute("select kind, sum(seen)::int from noise group by kind order by kind").fetchall()
    assert rows == [("other", 1), ("unauthenticated", 1001)]


async def test_a_database_that_is_away_harms_nobody(database: TestDatabase) -> None:
    away = Database("postgresql+psycopg://awgp_app:wrong@127.0.0.1:1/awgp")
    meter = NoiseMeter(away)
    meter.count("unauthenticated")
    await meter.close()
    await away.close()
