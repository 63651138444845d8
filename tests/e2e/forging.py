"""What the forgers' tests have in common: nothing happens, or exactly one thing does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID

from api.schemas.work_items import WorkItemAnswer
from tests.e2e import work
from tests.e2e.client import User
from tests.e2e.polling import PAUSE_SECONDS, eventually
from tests.e2e.recount import Recount, expect_well
from workers.stack.stack import Stack

QUIET_SECONDS = 3.0
"""How long nothing must happen after a forgery; a run that is let through starts within a second or two."""


async def still(recount: Recount, item_id: UUID, status: str) -> None:
    """For a while nothing runs, nothing is minted, and the status stays."""
    until = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < until:
        (row,) = recount.rows("SELECT status FROM work_items WHERE id = %(item)s", item=item_id)
        assert row["status"] == status, row
        assert not {"warrant.minted", "run.started"} & set(recount.kinds(item_id))
        await asyncio.sleep(PAUSE_SECONDS)


async def waiting(user: User, level: str = "L3") -> WorkItemAnswer:
    """An item that waits for humans, short when it runs."""
    asked = await user.submit(work.item(await work.sleeper(user), level, parameters={"seconds": 0.5}))
    return await user.until(asked.id, {"awaiting_approval"}, 60)


async def ran_once(user: User, item_id: UUID, recount: Recount, seconds: float = 120) -> None:
    """The item succeeds, its one whole execution is in its output, and the books are right."""
    await user.until(item_id, {"succeeded"}, seconds)
    ran = work.Executions.of(await user.output(item_id))
    assert ran.whole, ran
    assert len(ran.nonces) == 1, ran
    assert recount.kinds(item_id).count("run.started") == 1
    expect_well(recount, [item_id])


async def audited(recount: Recount, item_id: UUID, kind: str, seconds: float = 90) -> None:
    """Until an event of this kind is in the item's trail."""
    await eventually(lambda: kind in recount.kinds(item_id), seconds, f"{kind} in the trail of {item_id}")


@asynccontextmanager
async def no_runtime(stack: Stack, alice: User, recount: Recount) -> AsyncGenerator[WorkItemAnswer]:
    """An item with a live warrant that waits for a place, while Acme's runtime is down."""
    await asyncio.to_thread(stack.supervision.stop, "runtime-acme")
    try:
        asked = await alice.submit(work.item(await work.sleeper(alice), parameters={"seconds": 0.5}))
        await alice.until(asked.id, {"queued"}, 60)
        await audited(recount, asked.id, "warrant.minted")
        yield asked
    finally:
        stack.supervision.start("runtime-acme")
