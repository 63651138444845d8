"""Every way to end before the end: cancelled in each state, expired, halted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID

import docker
import pytest
import yaml

from tests.e2e import work
from tests.e2e.client import Console, ProblemError, User
from tests.e2e.recount import Recount, expect_well
from workers.stack.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.docker, pytest.mark.timeout(600)]

EXPIRES_SECONDS = 60
"""The shortest that a policy may say."""


@pytest.fixture(scope="module", autouse=True)
def expiring(stack: Stack) -> UUID:
    """An item whose question expires while the other tests of this file run."""

    async def ask() -> UUID:
        async with Console(stack) as console:
            gina, gregor = console.user("gina"), console.user("gregor")
            before = (await gregor.call("GET", "/v1/policies/current"))["source"]
            policy = yaml.safe_load(before)
            policy["approvals"]["L3"] |= {"expires_after": EXPIRES_SECONDS, "remind_after": []}
            await gregor.call("POST", "/v1/policies", {"source": yaml.safe_dump(policy, sort_keys=False)})
            asked = await gina.submit(work.item(await work.sleeper(gina), "L3", parameters={"seconds": 1}))
            await gregor.call("POST", "/v1/policies", {"source": before})
            return asked.id

    return asyncio.run(ask())


def containers_of(stack: Stack, run_id: UUID) -> list[str]:
    """Ids of a run's containers, running or not."""
    client = docker.DockerClient(base_url=stack.engine.host, timeout=30)
    try:
        found = client.containers.list(all=True, ignore_removed=True, filters={"label": f"awgp.run={run_id}"})
        return [str(container.id) for container in found]
    finally:
        client.close()


@asynccontextmanager
async def halted(admin: User, scope: str, **more: str) -> AsyncGenerator[None]:
    """A halt in force; lifted at the end whatever happens."""
    await admin.halt(scope, reason="a test", **more)
    try:
        yield
    finally:
        await admin.lift(scope, **{name: value for name, value in more.items() if name != "mode"})


async def active_halts(user: User) -> int:
    return len((await user.call("GET", "/v1/halts?active=true"))["items"])


async def test_cancel_reaches_what_runs(stack: Stack, alice: User, recount: Recount) -> None:
    asked = await alice.submit(work.item(await work.sleeper(alice), parameters={"seconds": 100}))
    await alice.begun(asked.id)
    run_id = (await alice.item(asked.id)).run_id
    assert run_id is not None
    assert len(containers_of(stack, run_id)) == 1
    answer = await alice.cancel(asked.id, "the wrong quarter")
    assert answer.cancel_requested
    await alice.cancel(asked.id, "a second reason")
    done = await alice.until(asked.id, {"cancelled"}, 30)
    assert (done.outcome, done.reason, done.cancel_reason) == ("cancelled", "the wrong quarter", "the wrong quarter")
    assert containers_of(stack, run_id) == []
    assert "end" not in await alice.output(asked.id)
    assert done.cost_nano is not None
    assert 0 < done.cost_nano < done.worst_case_nano
    kinds = recount.kinds(asked.id)
    assert kinds.count("run.kill_requested") == 1
    expect_well(recount, [asked.id])


async def test_cancel_while_it_waits_for_humans(alice: User, anton: User, recount: Recount) -> None:
    asked = await alice.submit(work.item(await work.sleeper(alice), "L3", parameters={"seconds": 1}))
    approval = await anton.approval_of(asked.id)
    await alice.cancel(asked.id, "asked by mistake")
    assert (await alice.until(asked.id, {"cancelled"}, 30)).reason == "asked by mistake"
    with pytest.raises(ProblemError) as late:
        await anton.decide(approval)
    assert late.value.status == 409
    assert "run.started" not in recount.kinds(asked.id)
    expect_well(recount, [asked.id])


async def test_cancel_while_it_waits_for_money(alice: User, armin: User, recount: Recount) -> None:
    poor = await alice.assistant(work.assistant("poor-and-cancelled", work.SLEEPER))
    await armin.set_budget("assistant", "day", "0.0001 USD", assistant_id=str(poor.id))
    asked = await alice.submit(work.item(poor.slug, parameters={"seconds": 1}))
    await alice.until(asked.id, {"awaiting_budget"}, 30)
    await alice.cancel(asked.id)
    await alice.until(asked.id, {"cancelled"}, 30)
    assert "run.started" not in recount.kinds(asked.id)
    expect_well(recount, [asked.id])


async def test_cancel_while_it_is_queued(alice: User, armin: User, recount: Recount) -> None:
    held = await alice.assistant(work.assistant("held-and-cancelled", work.SLEEPER))
    async with halted(armin, "assistant", assistant_id=str(held.id), mode="hold"):
        asked = await alice.submit(work.item(held.slug, parameters={"seconds": 1}))
        await alice.until(asked.id, lambda item: item.status == "queued" and item.held, 30)
        await alice.cancel(asked.id)
        await alice.until(asked.id, {"cancelled"}, 30)
    assert "run.started" not in recount.kinds(asked.id)
    expect_well(recount, [asked.id])


async def test_cancel_at_once_wherever_it_finds_the_item(alice: User, recount: Recount) -> None:
    slug = await work.sleeper(alice)

    async def one(number: int) -> UUID:
        asked = await alice.submit(work.item(slug, parameters={"seconds": 60}))
        # Between the request's answer and a running sandbox lies about a second: eight points of it.
        await asyncio.sleep(number * 0.15)
        await alice.cancel(asked.id)
        await alice.until(asked.id, {"cancelled"}, 60)
        return asked.id

    items = await asyncio.gather(*(one(number) for number in range(8)))
    expect_well(recount, items)


async def test_a_halt_kills_what_runs_and_holds_what_waits(
    console: Console, gina: User, gregor: User, recount: Recount
) -> None:
    slug = await work.sleeper(gina)
    runs = await gina.submit(work.item(slug, parameters={"seconds": 100}))
    await gina.begun(runs.id)
    waits = await gina.submit(work.item(slug, "L3", parameters={"seconds": 0.5}))
    await gina.until(waits.id, {"awaiting_approval"}, 30)
    async with halted(gregor, "tenant"):
        assert (await gina.until(runs.id, {"halted"}, 30)).outcome == "halted"
        georg = console.user("georg")
        await georg.decide(await georg.approval_of(waits.id))
        new = await gina.submit(work.item(slug, parameters={"seconds": 0.5}))
        for each in (waits, new):
            await gina.until(each.id, lambda item: item.status == "queued" and item.held, 30)
        assert await active_halts(gina) == 1
    for each in (waits, new):
        await gina.until(each.id, {"succeeded"}, 90)
    assert await active_halts(gina) == 0
    expect_well(recount, [runs.id, waits.id, new.id])


async def test_a_hold_lets_run_what_runs(alice: User, armin: User, recount: Recount) -> None:
    made = await alice.assistant(work.assistant("held", work.SLEEPER))
    runs = await alice.submit(work.item(made.slug, parameters={"seconds": 4}))
    await alice.begun(runs.id)
    async with halted(armin, "assistant", assistant_id=str(made.id), mode="hold"):
        new = await alice.submit(work.item(made.slug, parameters={"seconds": 0.5}))
        other = await alice.submit(work.item(await work.sleeper(alice), parameters={"seconds": 0.5}))
        await alice.until(new.id, lambda item: item.status == "queued" and item.held, 30)
        await alice.until(runs.id, {"succeeded"}, 60)
        await alice.until(other.id, {"succeeded"}, 60)
        assert (await alice.item(new.id)).status == "queued"
    await alice.until(new.id, {"succeeded"}, 60)
    expect_well(recount, [runs.id, new.id, other.id])


async def test_a_question_that_nobody_answers_expires(
    expiring: UUID, console: Console, gina: User, recount: Recount
) -> None:
    done = await gina.until(expiring, {"expired"}, EXPIRES_SECONDS + 30)
    assert done.ended_at is not None
    (approval,) = recount.rows("SELECT * FROM approvals WHERE work_item_id = %(item)s", item=expiring)
    assert approval["status"] == "expired"
    asked_for = (approval["expires_at"] - approval["created_at"]).total_seconds()
    assert asked_for == pytest.approx(EXPIRES_SECONDS, abs=1)
    assert 0 <= (done.ended_at - approval["expires_at"]).total_seconds() < 15
    body = {"verdict": "approve", "reason": "too late"}
    with pytest.raises(ProblemError) as late:
        await console.user("georg").call("POST", f"/v1/approvals/{approval['id']}/decision", body)
    assert late.value.status == 409
    expect_well(recount, [expiring])
