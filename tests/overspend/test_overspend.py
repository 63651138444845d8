"""The short form of `make overspend`."""

from __future__ import annotations

from tests.fixtures.postgres import TestDatabase
from tests.fixtures.valkey import ValkeyServer
from tests.overspend.__main__ import rounds
from tests.overspend.world import world_of


async def test_exactly_as_many_calls_go_through_as_the_reservation_suffices_for(
    database: TestDatabase, valkey: ValkeyServer
) -> None:
    async with world_of(database, valkey) as world:
        tally = await rounds(world, calls=40, kills=4, seed=7)
    assert tally.well, (tally.line, tally.faults)
    assert tally.admitted == tally.expected == 60
