"""Agents struck in a model call, in a question and in an effect, by the death of each part: the short form."""

from __future__ import annotations

import pytest

from tests.chaos.agents import SHORT, AgentChaos, cells
from tests.e2e.agents import Receiver
from tests.e2e.client import Console
from tests.e2e.recount import Recount, expect_well
from workers.stack.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.docker, pytest.mark.timeout(900)]


async def test_no_effect_is_done_twice_and_no_agent_is_lost(stack: Stack) -> None:
    with Recount.of(stack) as recount:
        async with Console(stack) as console, Receiver.listening() as receiver:
            chaos = AgentChaos(stack, console, recount, receiver)
            await chaos.round(SHORT)
        assert chaos.faults == []
        assert set(chaos.seen) == cells(SHORT)
        expect_well(recount, chaos.items)
