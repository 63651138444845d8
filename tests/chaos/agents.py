"""Agents struck in the middle of a model call, of a question to people, and of an effect: nothing is done twice.

Their own account (their output), the other side's (the receiver's), and the database's are held beside each other.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import LiteralString
from uuid import UUID, uuid4

import docker
from docker.errors import APIError, NotFound

from models.domain.work_item import FINAL
from tests.chaos.cells import Cell
from tests.e2e import agents, work
from tests.e2e.agents import KEEPS_KEYS, TAKES_NO_KEYS, Course, Receiver
from tests.e2e.client import Console, ProblemError, patiently
from tests.e2e.polling import PAUSE_SECONDS, eventually
from tests.e2e.recount import Recount
from workers.stack.stack import Stack

PHASES = ("calling", "asking", "performing")
"""In a model call, waiting for people, while the effect is under way at the other side."""
INSIDE = ("agent", "guest")
"""Killed inside the sandbox: their run fails, and nothing else does."""
SHORT = ("gateway", "runtime-acme", "broker", "dockerd", *INSIDE)
LONG = ("control", "api", "relay", "containerd")
"""Struck by the longer form too."""
CALL_MS = 4000
ENDED_WITHIN_SECONDS = 150.0

FAULTS: dict[str, LiteralString] = {
    "a warrant for an effect that was used twice": """
        SELECT action_id AS id FROM warrants WHERE work_item_id = ANY(%(items)s) AND action_id IS NOT NULL
          AND claimed_at IS NOT NULL GROUP BY action_id HAVING count(*) > (SELECT count(*) FROM effect_attempts e
          WHERE e.action_id = warrants.action_id)""",
    "more than one action for one key": """
        SELECT work_item_id AS id FROM actions WHERE work_item_id = ANY(%(items)s) GROUP BY 1 HAVING count(*) > 1""",
    "an action that is open though its item has ended": """
        SELECT a.id FROM actions a JOIN work_items w ON w.tenant_id = a.tenant_id AND w.id = a.work_item_id
        WHERE w.id = ANY(%(items)s) AND w.ended_at IS NOT NULL AND a.status IN ('pending', 'staged')""",
    "model calls charged beyond the grant": """
        SELECT o.work_item_id AS id FROM llm_openings o JOIN llm_charges c
          ON c.tenant_id = o.tenant_id AND c.reservation_id = o.reservation_id WHERE o.work_item_id = ANY(%(items)s)
        GROUP BY o.work_item_id, o.grant_nano HAVING sum(c.amount_nano) > o.grant_nano""",
    "an item's cost without its model calls": """
        SELECT w.id FROM work_items w JOIN llm_charges l ON l.tenant_id = w.tenant_id AND l.work_item_id = w.id
        WHERE w.id = ANY(%(items)s) AND w.ended_at IS NOT NULL GROUP BY w.id, w.cost_nano
        HAVING w.cost_nano < sum(l.amount_nano)""",
}


def cells(blows: Sequence[str]) -> set[Cell]:
    """What these blows strike."""
    return {Cell(f"kill {blow}", phase) for blow in blows for phase in PHASES}


@dataclass(frozen=True)
class Struck:
    """One agent in one phase."""

    id: UUID
    phase: str
    name: str
    connector: str


class AgentChaos:
    """One stack's agents under blows.

    Args:
        say: Where progress goes.
    """

    def __init__(
        self,
        stack: Stack,
        console: Console,
        recount: Recount,
        receiver: Receiver,
        say: Callable[[str], None] = print,
    ) -> None:
        self._stack = stack
        self._owner, self._approver = console.user("alice"), console.user("anton")
        self._admin = console.user("armin")
        self._recount = recount
        self._receiver = receiver
        self._say = say
        self.items: list[UUID] = []
        self.seen: Counter[Cell] = Counter()
        self.faults: list[str] = []

    async def round(self, blows: Sequence[str] = (*SHORT, *LONG)) -> None:
        """Every blow on every phase."""
        await agents.connect(self._admin, self._receiver)
        slug = await agents.agent(self._owner)
        for number, blow in enumerate(blows):
            # The side that takes no keys is asked at most once; the one that does may be asked again.
            await self.strike(slug, blow, TAKES_NO_KEYS if number % 2 else KEEPS_KEYS)
        found = {words: self._recount.rows(sql, items=self.items) for words, sql in FAULTS.items()}
        self.faults += [f"{words}: {[row['id'] for row in rows]}" for words, rows in found.items() if rows]
        if self._receiver.strangers:
            self.faults.append(f"{self._receiver.strangers} requests came to the receiver without the credential")

    async def strike(self, slug: str, blow: str, connector: str) -> None:
        """Bring one agent into each phase, strike, let people and the other side answer, and look at what became."""
        herd = [await self._begin(slug, phase, connector) for phase in PHASES]
        self.items += [struck.id for struck in herd]
        await asyncio.gather(*(self._in_phase(struck) for struck in herd))
        await self._blow(blow, herd)
        for struck in herd:
            self.seen[Cell(f"kill {blow}", struck.phase)] += 1
        if blow not in INSIDE:
            await self._approve(herd[PHASES.index("asking")])
        self._receiver.release(herd[PHASES.index("performing")].name)
        statuses = await self._ended(herd)
        for struck in herd:
            await self._check(blow, struck, statuses[struck.id])

    # --- Into a phase -----------------------------------------------------------------------------------------------

    async def _begin(self, slug: str, phase: str, connector: str) -> Struck:
        name = uuid4().hex[:12]
        if phase == "performing":
            self._receiver.hold(name)
        asked = agents.action(connector, asks=phase == "asking", name=name)
        parameters = {"calls": 1, "delay_ms": CALL_MS if phase == "calling" else 0, "actions": [asked]}
        body = work.item(slug, "L0", f"Agents, {phase}", parameters=parameters)
        return Struck((await self._owner.submit(body)).id, phase, name, connector)

    async def _in_phase(self, struck: Struck) -> None:
        async def there() -> bool:
            match struck.phase:
                case "calling":
                    return "calling" in await self._output(struck)
                case "asking":
                    return (await self._owner.item(struck.id)).status.value == "awaiting_action"
                case _:
                    return self._receiver.requests[struck.name] > 0

        await eventually(there, 60, f"the agent is {struck.phase}")

    async def _output(self, struck: Struck) -> str:
        return await self._owner.output(struck.id)

    # --- Blows ------------------------------------------------------------------------------------------------------

    async def _blow(self, blow: str, herd: list[Struck]) -> None:
        if blow in INSIDE:
            await asyncio.gather(*(asyncio.to_thread(self._kill_inside, blow, struck) for struck in herd))
            return
        pid = self._stack.kill(blow, signal.SIGKILL)
        await asyncio.to_thread(self._stack.supervision.wait_running, blow, pid, 90)

    def _kill_inside(self, blow: str, struck: Struck) -> None:
        client = docker.DockerClient(base_url=self._stack.engine.host, timeout=30)
        try:
            (run,) = self._recount.rows("SELECT id FROM runs WHERE work_item_id = %(item)s", item=struck.id)
            found = [each for each in client.containers.list() if str(run["id"]) in (each.name or "")]
            for container in found:
                if blow == "guest":
                    container.kill("SIGKILL")
                else:
                    container.exec_run(["busybox", "killall", "-9", "python3"])
        except (APIError, NotFound) as error:
            self._say(f"  kill {blow}: {error}")
        finally:
            client.close()

    async def _approve(self, struck: Struck) -> None:
        async def once() -> None:
            approval = await self._approver.approval_of(struck.id, 60)
            try:
                await self._approver.decide(approval)
            except ProblemError as error:
                if error.status != 409:  # an answer that was lost: the vote counts once
                    raise

        await patiently(once)

    # --- Looking ----------------------------------------------------------------------------------------------------

    async def _ended(self, herd: list[Struck]) -> dict[UUID, str]:
        deadline = time.monotonic() + ENDED_WITHIN_SECONDS
        while True:
            items = await asyncio.gather(*(patiently(lambda one=one: self._owner.item(one.id)) for one in herd))
            statuses = {item.id: item.status.value for item in items}
            if all(status in FINAL for status in statuses.values()) or time.monotonic() > deadline:
                return statuses
            await asyncio.sleep(PAUSE_SECONDS * 2)

    async def _check(self, blow: str, struck: Struck, status: str) -> None:
        where = f"kill {blow}, {struck.phase}, item {struck.id}"
        course = Course.of(await self._output(struck))
        done, asked = self._receiver.done[struck.name], self._receiver.requests[struck.name]
        if len(course.nonces) > 1:
            self.faults.append(f"{where}: ran {len(course.nonces)} times")
        if done > 1 or (struck.connector == TAKES_NO_KEYS and asked > 1):
            self.faults.append(f"{where}: its effect was done {done} times, asked for {asked} times")
        wanted = "failed" if blow in INSIDE else "succeeded"
        if status != wanted:
            self.faults.append(f"{where} is {status}, not {wanted}")
        elif status == "succeeded":
            self._check_whole(where, struck, course)

    def _check_whole(self, where: str, struck: Struck, course: Course) -> None:
        said = course.words[-2] if len(course.words) > 1 else ""
        answers = {"answered 200 performed"}
        if struck.phase == "performing" and struck.connector == TAKES_NO_KEYS:
            # Who was killed between the request and its answer cannot know, and says so.
            answers |= {"answered 200 unknown"}
        if said not in answers or (course.words[:1], course.words[-1:]) != (("begin",), ("end",)):
            self.faults.append(f"{where}: said {course.words}")
        elif self._receiver.done[struck.name] != 1:
            self.faults.append(f"{where}: its effect was done {self._receiver.done[struck.name]} times")


def containers_left(stack: Stack) -> list[str]:
    """Names of the containers that the engine still has."""
    client = docker.DockerClient(base_url=stack.engine.host, timeout=30)
    try:
        return [str(each.name) for each in client.containers.list(all=True, ignore_removed=True)]
    finally:
        client.close()

