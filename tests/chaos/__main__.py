"""`python -m tests.chaos --rounds n`: kills every process in every state on a private stack, and counts again.

The last line is `rounds=… states=… admitted=… ended=… lost=… doubled=…`; the exit status is 0 only if all of it held.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from tests.chaos.agents import AgentChaos
from tests.chaos.harness import Harness, Tally
from tests.e2e.agents import Receiver
from tests.e2e.client import Console
from tests.e2e.private_stack import SHARED
from tests.e2e.recount import Recount
from workers.stack.stack import Stack


async def run(stack: Stack, rounds: int) -> Tally:
    """So many rounds; a round's faults are told as it ends."""
    with Recount.of(stack) as recount:
        async with Console(stack) as console, Receiver.listening() as receiver:
            harness = Harness(stack, console, recount)
            struck = AgentChaos(stack, console, recount, receiver)
            for number in range(1, rounds + 1):
                started = time.monotonic()
                await harness.round()
                await harness.storm(seed=number)
                await struck.round()
                harness.add(struck)
                tally = harness.tally()
                print(f"  round {number} ({time.monotonic() - started:.0f} s): {tally.line}", flush=True)
            for cell, times in sorted(harness.seen.items()):
                print(f"    {cell}: {times}")
            return harness.tally()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    rounds = parser.parse_args().rounds
    with SHARED.use() as stack:
        tally = asyncio.run(run(stack, rounds))
    for fault in tally.faults:
        print(f"  FAULT {fault}")
    print(tally.line, flush=True)
    return 0 if tally.well and tally.rounds == rounds else 1


if __name__ == "__main__":
    sys.exit(main())
