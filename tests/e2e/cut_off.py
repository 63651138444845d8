"""A host runtime that is cut off: frozen by SIGSTOP while its sandboxes run, past its lease and the grace after it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from tests.e2e import work
from tests.e2e.client import Console
from workers.stack.stack import Stack

RUNTIME = "runtime-example-holding"
OWNER = "henry"
RUN_SECONDS = 300.0
"""Longer than lease (120 s) and grace (30 s): what ends earlier was ended."""


@dataclass(frozen=True)
class CutOff:
    """What runs on the frozen runtime.

    Attributes:
        once: An item whose assistant may not be run again.
        again: One whose assistant may.
    """

    stack: Stack
    pid: int
    once: UUID
    again: UUID

    def thaw(self) -> None:
        """Let the runtime go on."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)


@contextmanager
def cut_off_runtime(stack: Stack) -> Generator[CutOff]:
    """Start both items and freeze their runtime; it goes on at the end whatever happens."""
    once, again = asyncio.run(_begin(stack))
    pid = stack.kill(RUNTIME, signal.SIGSTOP)
    frozen = CutOff(stack, pid, once, again)
    try:
        yield frozen
    finally:
        frozen.thaw()


async def _begin(stack: Stack) -> tuple[UUID, UUID]:
    async with Console(stack) as console:
        henry = console.user(OWNER)
        items: list[UUID] = []
        for restartable in (False, True):
            slug = "long-again" if restartable else "long"
            limits = {**work.SMALL, "wall_seconds": int(RUN_SECONDS) * 2}
            await henry.assistant(work.assistant(slug, work.SLEEPER, restartable=restartable, limits=limits))
            asked = await henry.submit(work.item(slug, parameters={"seconds": RUN_SECONDS}))
            items.append(asked.id)
        for item_id in items:
            await henry.begun(item_id)
        return items[0], items[1]
