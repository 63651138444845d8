"""Every process killed with -9 in every state, and workflows terminated and reset: the short form of `make chaos`."""

from __future__ import annotations

import pytest

from tests.chaos.cells import CELLS, KILLED
from tests.chaos.harness import Harness
from tests.e2e.client import Console
from tests.e2e.recount import Recount
from workers.stack.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.docker, pytest.mark.timeout(900)]


async def test_nothing_is_lost_and_nothing_is_done_twice(stack: Stack) -> None:
    with Recount.of(stack) as recount:
        async with Console(stack) as console:
            harness = Harness(stack, console, recount)
            await harness.round(KILLED)
            tally = harness.tally()
    print(tally.line)
    assert tally.faults == ()
    assert set(harness.seen) == set(CELLS)
    assert (tally.lost, tally.doubled) == (0, 0)
    assert tally.admitted == tally.ended > 0
