"""`python -m tests.overspend --calls n`: a reservation for exactly n/2 calls, and n callers at once.

First on one gateway, then on two, then on two that are killed -9 at random. The last line is
`calls=… admitted=… expected=… refused=… over=…`, counted from the upstream's own log and the ledger; the exit status
is 0 only if exactly the expected ones were admitted, and nothing went over.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.fixtures.postgres import cloned, running_postgres
from tests.fixtures.valkey import running_valkey
from tests.overspend.spending import Spender, Tally
from tests.overspend.world import World, world_of

KILLS = 12


async def rounds(world: World, calls: int, kills: int, seed: int) -> Tally:
    """The three rounds, each with gateways of its own."""
    upstream = world.upstream()
    upstream.start()
    await upstream.listening()
    total = Tally(0, 0, 0, 0, 0, ())
    for words, many, strikes in (
        ("one gateway", 1, 0),
        ("two gateways", 2, 0),
        (f"two gateways, {kills} times one is killed -9", 2, kills),
    ):
        gateways = [world.gateway(upstream.url) for _ in range(many)]
        for gateway in gateways:
            gateway.start()
        for gateway in gateways:
            await gateway.listening()
        tally = await Spender(world, gateways, seed).round(calls, kills=strikes)
        print(f"  {words}: {tally.line}", flush=True)
        total += tally
    return total


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.overspend", description=__doc__)
    parser.add_argument("--calls", type=int, default=200, help="callers a round")
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    async def run() -> Tally:
        with running_postgres() as server, running_valkey() as valkey, cloned(server) as database:
            async with world_of(database, valkey) as world:
                return await rounds(world, max(2, options.calls), options.kills, options.seed)

    tally = asyncio.run(run())
    for fault in tally.faults:
        print(f"  FAULT {fault}")
    print(tally.line, flush=True)
    return 0 if tally.well else 1


if __name__ == "__main__":
    sys.exit(main())
