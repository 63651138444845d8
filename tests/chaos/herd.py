"""Work items that are brought into a state, seen there, and proved to have run once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from models.domain.work_item import FINAL, WorkItemStatus
from tests.chaos.cells import STATES
from tests.e2e import work
from tests.e2e.client import ProblemError, User, patiently
from tests.e2e.polling import PAUSE_SECONDS
from tests.e2e.recount import Recount

LONG_SECONDS = 10.0
"""A run that is to be struck: long enough that its process is dead and back while it still prints. Doubled when it was
too short for a busy machine."""
SHORT_SECONDS = 0.5
STATE_WITHIN_SECONDS = 60.0


class StateMissedError(Exception):
    """An item was not (or no longer) in the state that was to be struck."""


@dataclass(frozen=True)
class Animal:
    """One work item of the herd."""

    id: UUID
    tenant_id: UUID
    state: str


@dataclass
class Herd:
    """Items of one company.

    Attributes:
        requester: Asks for them.
        approver: Decides on those that wait.
        seconds: How long those that are to be struck while they run go on.
    """

    requester: User
    approver: User
    seconds: float = LONG_SECONDS
    members: list[Animal] = field(default_factory=list[Animal])

    def of(self, state: str) -> list[Animal]:
        return [animal for animal in self.members if animal.state == state]

    async def gather(self, *, waiting: int, running: int, queued: int) -> None:
        """Ask for so many and wait until each is in its state.

        Raises:
            StateMissedError: Not all came there in time.
        """
        slug = await work.sleeper(self.requester)
        await asyncio.gather(*(self._ask(slug, "running", "L0", self.seconds) for _ in range(running)))
        await asyncio.gather(*(self._ask(slug, "waiting", "L3", SHORT_SECONDS) for _ in range(waiting)))
        # INVARIANT: these find every place taken, because `running` is the runtime's capacity.
        await self._all_in("running", "waiting")
        await asyncio.gather(*(self._ask(slug, "queued", "L0", SHORT_SECONDS) for _ in range(queued)))
        await self._all_in("queued")

    async def pass_through(self, number: int) -> None:
        """Ask for so many and decide where somebody must, without waiting for any state."""
        slug = await work.sleeper(self.requester)

        async def one(ordinal: int) -> None:
            waits = ordinal % 3 == 0
            await self._ask(slug, "waiting" if waits else "running", "L3" if waits else "L0", self.seconds)
            if waits:
                await self.approve(self.members[-1])

        for ordinal in range(number):
            await one(ordinal)

    async def _ask(self, slug: str, state: str, level: str, seconds: float) -> None:
        body = work.item(slug, level, f"Chaos, {state}", parameters={"seconds": seconds})
        asked = await self.requester.submit(body)
        self.members.append(Animal(asked.id, asked.tenant_id, state))

    async def _all_in(self, *states: str) -> None:
        chosen = [animal for state in states for animal in self.of(state)]
        deadline = time.monotonic() + STATE_WITHIN_SECONDS
        missing = chosen
        while missing:
            seen = await asyncio.gather(*(self._in_state(animal) for animal in missing))
            missing = [animal for animal, there in zip(missing, seen, strict=True) if not there]
            if missing and time.monotonic() > deadline:
                raise StateMissedError(f"{len(missing)} of {len(chosen)} items are not {' or '.join(states)}")
            if missing:
                await asyncio.sleep(PAUSE_SECONDS)

    async def _in_state(self, animal: Animal) -> bool:
        status = (await self.requester.item(animal.id)).status
        if status.is_final:
            raise StateMissedError(f"an item to be {animal.state} is {status} already")
        if status != STATES[animal.state]:
            return False
        return animal.state != "running" or (await self.requester.output(animal.id)).startswith("begin")

    async def seen(self) -> dict[UUID, str]:
        """The status that the API says of each, now."""
        items = await asyncio.gather(*(patiently(lambda a=a: self.requester.item(a.id)) for a in self.members))
        return {item.id: item.status.value for item in items}

    async def approve(self, animal: Animal) -> None:
        """Decide on one that waits; an answer that was lost is asked for again, and the vote counts once."""

        async def once() -> None:
            approval = await self.approver.approval_of(animal.id)
            try:
                await self.approver.decide(approval)
            except ProblemError as error:
                if error.problem.get("code") != "already_voted":
                    raise

        await patiently(once)

    async def wait_ended(self, seconds: float) -> dict[UUID, str]:
        """The statuses once all are final, or the time is over: what is open then is lost."""
        deadline = time.monotonic() + seconds
        while True:
            statuses = await self.seen()
            if all(status in FINAL for status in statuses.values()) or time.monotonic() > deadline:
                return statuses
            await asyncio.sleep(PAUSE_SECONDS * 2)

    async def executions(self) -> dict[UUID, work.Executions]:
        """How often each ran, by its own output."""
        outputs = await asyncio.gather(*(self.requester.output(animal.id) for animal in self.members))
        return {
            animal.id: work.Executions.of(output) for animal, output in zip(self.members, outputs, strict=True)
        }


def statuses_at(recount: Recount, items: list[UUID], moment: datetime) -> dict[UUID, str]:
    """Each item's status at a moment of the database's clock, by the audit trail."""
    rows: list[dict[str, Any]] = recount.rows(
        """SELECT DISTINCT ON (work_item_id) work_item_id AS id, substr(kind, 11) AS status FROM audit_events
           WHERE work_item_id = ANY(%(items)s) AND kind = ANY(%(kinds)s) AND occurred_at <= %(moment)s
           ORDER BY work_item_id, seq DESC""",
        items=items,
        moment=moment,
        kinds=[f"work_item.{status.value}" for status in WorkItemStatus],
    )
    return {row["id"]: row["status"] for row in rows}
