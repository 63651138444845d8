"""Strikes, waits for recovery, and counts again from the database."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sandbox.runtime_settings import RuntimeSettings
from tests.chaos.agents import AgentChaos
from tests.chaos.cells import KILLED, STATES, STORMED, Cell
from tests.chaos.herd import LONG_SECONDS, Animal, Herd, StateMissedError, statuses_at
from tests.e2e.client import Console
from tests.e2e.recount import Recount
from tests.e2e.temporal_cli import TemporalCli, workflow_of
from workers.stack.stack import Stack

TRIES = 3
"""How often a strike that missed its state is tried again."""
DOOMED_SECONDS = 110.0
"""A run whose workflow is terminated: longer than the minute until reconciliation sees it. (One that ends well before
that is settled as what it is.)"""
ENDED_WITHIN_SECONDS = 150.0
"""After a strike. The longest thing waited for: `follow_run` is given to another broker 30 s after one died, and a
terminated workflow's item is settled by the next two runs of the reconciliation, a minute apart."""


@dataclass(frozen=True)
class Tally:
    """What came of it all, counted from the database.

    Attributes:
        rounds: Rounds that were completed.
        states: Strikes on a state that was really there.
        admitted: Work items asked for.
        ended: Those with a final status.
        lost: Those without.
        doubled: Those that ended, started, were decided or charged twice, or whose output shows two executions.
        faults: Everything else that is not as it must be, in words.
    """

    rounds: int
    states: int
    admitted: int
    ended: int
    lost: int
    doubled: int
    faults: tuple[str, ...]

    @property
    def line(self) -> str:
        return (
            f"rounds={self.rounds} states={self.states} admitted={self.admitted} ended={self.ended}"
            f" lost={self.lost} doubled={self.doubled}"
        )

    @property
    def well(self) -> bool:
        return not (self.lost or self.doubled or self.faults) and self.admitted == self.ended > 0


class Harness:
    """One stack's chaos.

    Args:
        say: Where progress goes.
    """

    def __init__(self, stack: Stack, console: Console, recount: Recount, say: Callable[[str], None] = print) -> None:
        self._stack = stack
        self._console = console
        self._recount = recount
        self._temporal = TemporalCli(stack)
        self._say = say
        self._capacity = int(stack.kept.get("AWGP_RUNTIME_CAPACITY") or RuntimeSettings().capacity)
        self.seen: Counter[Cell] = Counter()
        self.rounds = 0
        self._items: list[UUID] = []
        self._doubled: set[UUID] = set()
        self._faults: list[str] = []

    async def round(self, processes: Sequence[str] = KILLED) -> None:
        """Every blow on every state, once; cells that were missed are tried again."""
        struck = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.strike_workflows(struck))
            await struck.wait()  # These blows fall in a quiet house; the waiting afterwards is shared.
            for process in processes:
                await self.kill(process)
        self.rounds += 1

    # --- Blows ------------------------------------------------------------------------------------------------------

    async def kill(self, process: str) -> None:
        """Kill -9 while items wait, are queued and run; half of the decisions fall while the process is dead."""
        missing = {state: Cell(f"kill {process}", state) for state in STATES}
        for number in range(TRIES):
            herd = Herd(self._console.user("alice"), self._console.user("anton"), LONG_SECONDS * 2**number)
            try:
                await herd.gather(waiting=2, running=self._capacity, queued=2)
                pid = self._stack.pid(process)
                assert pid is not None, f"{process} does not run"
                before = await herd.seen()
                moment = self._now()
                os.kill(pid, signal.SIGKILL)
            except StateMissedError as error:
                self._say(f"  kill {process}: missed ({error})")
                await self._settle(herd)
                continue
            at_once, later = herd.of("waiting")
            await herd.approve(at_once)
            await asyncio.to_thread(self._stack.supervision.wait_running, process, pid, 90)
            after = await herd.seen()
            await herd.approve(later)
            await self._settle(herd)
            struck = self._struck(herd.members, before, moment)
            self._check_after(process, herd, after, struck)
            for state in struck & missing.keys():
                self.seen[missing.pop(state)] += 1
            if not missing:
                return
            self._say(f"  kill {process}: {', '.join(missing)} missed")
        self._faults.append(f"kill {process}: never struck {', '.join(missing)}")

    async def storm(self, seed: int, items: int = 12, kills: int = 8) -> None:
        """Kill whatever comes, whenever it comes, while items are on their way: between the states of the table.

        What was struck in which moment is not known, so nothing of it is counted as a state; that nothing is lost and
        nothing done twice is counted all the same.
        """
        chance = random.Random(seed)
        herd = Herd(self._console.user("alice"), self._console.user("anton"), 3.0)
        async with asyncio.TaskGroup() as group:
            group.create_task(herd.pass_through(items))
            for _ in range(kills):
                await asyncio.sleep(chance.uniform(0.2, 2.5))  # The moment is what is drawn by lot.
                process = chance.choice(STORMED)
                pid = self._stack.pid(process)
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
        for process in STORMED:
            await asyncio.to_thread(self._stack.supervision.wait_running, process, 0, 90)
        await self._settle(herd)

    async def strike_workflows(self, struck: asyncio.Event) -> None:
        """Terminate and reset the workflows of items that wait and that run, with Temporal's own command.

        `struck` is set when the blows have fallen, or have missed for good.
        """
        kinds = {"waiting": ("FirstWorkflowTask",), "running": ("FirstWorkflowTask", "LastWorkflowTask")}
        for number in range(TRIES):
            doomed = Herd(self._console.user("gina"), self._console.user("georg"), DOOMED_SECONDS)
            spared = Herd(self._console.user("gina"), self._console.user("georg"), LONG_SECONDS * 2**number)
            try:
                await asyncio.gather(
                    doomed.gather(waiting=1, running=1, queued=0), spared.gather(waiting=1, running=2, queued=0)
                )
                before = {**await doomed.seen(), **await spared.seen()}
                moment = self._now()
            except StateMissedError as error:
                self._say(f"  terminate, reset: missed ({error})")
                await asyncio.gather(self._settle(doomed), self._settle(spared))
                continue
            for animal in doomed.members:
                await self._temporal.terminate(workflow_of(animal.tenant_id, animal.id))
            for state, how in kinds.items():
                for animal, kind in zip(spared.of(state), how, strict=True):
                    await self._temporal.reset(workflow_of(animal.tenant_id, animal.id), kind)
            struck.set()
            await spared.approve(spared.of("waiting")[0])
            await asyncio.gather(self._settle(spared), self._settle(doomed, "halted"))
            for blow, herd in (("terminate", doomed), ("reset", spared)):
                for state in self._struck(herd.members, before, moment):
                    self.seen[Cell(blow, state)] += 1
            return
        struck.set()
        self._faults.append("terminate, reset: never struck")

    # --- Looking ----------------------------------------------------------------------------------------------------

    def _now(self) -> datetime:
        return self._recount.value("SELECT clock_timestamp()")

    def _struck(self, members: Sequence[Animal], before: dict[UUID, str], moment: datetime) -> set[str]:
        """States that all their items were in when the blow fell: by the API before, by the trail at that moment."""
        at_moment = statuses_at(self._recount, [animal.id for animal in members], moment)
        wrong = {
            animal.state
            for animal in members
            if not before[animal.id] == at_moment.get(animal.id) == STATES[animal.state]
        }
        return {animal.state for animal in members} - wrong

    def _check_after(self, process: str, herd: Herd, after: dict[UUID, str], struck: set[str]) -> None:
        """After the recovery nothing has gone backwards: one that ran runs or has ended well."""
        allowed = {
            "waiting": {"awaiting_approval", "queued", "running", "succeeded"},
            "queued": {"queued", "running", "succeeded"},
            "running": {"running", "succeeded"},
        }
        for animal in herd.members:
            if animal.state in struck and after[animal.id] not in allowed[animal.state]:
                self._faults.append(f"kill {process}: {animal.state} item {animal.id} was {after[animal.id]} after it")

    async def _settle(self, herd: Herd, ends_as: str = "succeeded") -> None:
        """Wait for the herd's end, and hold what it became against what it must be."""
        self._items += [animal.id for animal in herd.members]
        statuses = await herd.wait_ended(ENDED_WITHIN_SECONDS)
        executions = await herd.executions()
        for animal in herd.members:
            ran, status = executions[animal.id], statuses[animal.id]
            if len(ran.nonces) > 1:
                self._doubled.add(animal.id)
            if status != ends_as:
                self._faults.append(f"{animal.state} item {animal.id} is {status}, not {ends_as}")
            elif ends_as == "succeeded" and not (ran.whole and len(ran.nonces) == 1):
                self._faults.append(f"{animal.state} item {animal.id} succeeded, but its output is not one whole run")

    def add(self, struck: AgentChaos) -> None:
        """Count what agents' chaos has struck with the rest; it is emptied."""
        self._items += struck.items
        self._faults += struck.faults
        self.seen += struck.seen
        struck.items, struck.faults, struck.seen = [], [], Counter()

    def tally(self) -> Tally:
        """Count everything again from the database."""
        count = self._recount.count(self._items)
        faults = self._recount.faults(self._items)
        doubled = self._doubled | {item for ids in faults.values() for item in ids}
        words = [*self._faults, *(f"{what}: {ids}" for what, ids in {**faults, **self._recount.books()}.items())]
        words += [f"the audit trail of {slug} is not whole" for slug in self._recount.broken_chains()]
        if count.admitted != len(set(self._items)):
            words.append(f"{len(set(self._items))} items were asked for, {count.admitted} are there")
        lost = len(set(self._items)) - count.ended
        return Tally(
            self.rounds, sum(self.seen.values()), count.admitted, count.ended, lost, len(doubled), tuple(words)
        )
