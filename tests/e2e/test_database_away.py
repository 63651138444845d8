"""PostgreSQL away: everybody is told, nothing is lost."""

from __future__ import annotations

import asyncio
import time
from uuid import uuid4

import pytest

from tests.e2e import work
from tests.e2e.client import Console, ProblemError, User
from tests.e2e.polling import PAUSE_SECONDS
from tests.e2e.recount import Recount, expect_well
from workers.stack.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.docker, pytest.mark.timeout(600)]

AWAY_SECONDS = 12.0


async def test_nothing_is_lost_while_the_database_is_away(
    stack: Stack, console: Console, alice: User, anton: User
) -> None:
    slug = await work.sleeper(alice)
    runs = [await alice.submit(work.item(slug, parameters={"seconds": AWAY_SECONDS * 1.5})) for _ in range(2)]
    ends_meanwhile = await alice.submit(work.item(slug, parameters={"seconds": 6}))
    waits = await alice.submit(work.item(slug, "L3", parameters={"seconds": 0.5}))
    approval = await anton.approval_of(waits.id)
    for each in (*runs, ends_meanwhile):
        await alice.begun(each.id)

    await asyncio.to_thread(stack.supervision.stop, "postgres")
    stopped = time.monotonic()
    try:
        problem = await told(alice, waits.id)
        assert problem.status == 503
        assert problem.content_type == "application/problem+json"
        assert problem.problem["type"].endswith("/dependency-away")
        body, key = work.item(slug, parameters={"seconds": 1}), {"Idempotency-Key": str(uuid4())}
        with pytest.raises(ProblemError) as refused:
            await alice.call("POST", "/v1/work-items", body, headers=key)
        assert refused.value.status == 503
        assert await readiness(stack, console) == (503, "away", "away")
        # What is measured is an outage of this length; the runs go on meanwhile.
        await asyncio.sleep(max(0.0, AWAY_SECONDS - (time.monotonic() - stopped)))
    finally:
        stack.supervision.start("postgres")
    await asyncio.to_thread(stack.postgres.wait, stack.credentials)

    assert (await alice.until(waits.id, {"awaiting_approval"}, 60)).status == "awaiting_approval"
    await anton.decide(approval)
    for each in (*runs, ends_meanwhile, waits):
        await alice.until(each.id, {"succeeded"}, 120)
        assert work.Executions.of(await alice.output(each.id)).whole
    with Recount.of(stack) as recount:
        expect_well(recount, [*(each.id for each in runs), ends_meanwhile.id, waits.id])


async def told(user: User, item_id: object) -> ProblemError:
    """What the API says while it cannot answer; that the API itself goes away is an error."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            await user.call("GET", f"/v1/work-items/{item_id}")
        except ProblemError as problem:
            return problem
        await asyncio.sleep(PAUSE_SECONDS)
    raise AssertionError("the API answered without its database")


async def readiness(stack: Stack, console: Console) -> tuple[int, str, str]:
    """HTTP's status, the API's, and PostgreSQL's, as `/readyz` says them."""
    async with console.session.get(f"{stack.api_url}/readyz") as response:
        answer = await response.json()
        states = {each["name"]: each["state"] for each in answer["dependencies"]}
        return response.status, answer["status"], next(states[name] for name in states if "postgres" in name.lower())
