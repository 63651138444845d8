"""Many at once: twenty clients with one key, sixty work items through the real sandbox."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from uuid import UUID, uuid4

import pytest

from tests.e2e import work
from tests.e2e.client import Console, ProblemError, User
from tests.e2e.recount import TERMINAL, Recount, expect_well
from workers.stack.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.docker, pytest.mark.timeout(900)]

ITEMS = 60
COUNTED = """
import json, os, sys
print(os.environ["AWGP_WORK_ITEM_ID"], flush=True)
sys.exit(json.loads(os.environ["AWGP_PARAMETERS"])["exit"])
"""


async def test_one_key_from_twenty_clients_is_one_item(stack: Stack, alice: User, recount: Recount) -> None:
    body = work.item(await work.sleeper(alice), "L3", parameters={"seconds": 1})
    key = str(uuid4())
    async with AsyncExitStack() as sessions:
        clients = [(await sessions.enter_async_context(Console(stack))).user("alice") for _ in range(20)]
        for client in clients:
            await client.me()  # has its token and its connection: they set off together
        answers = await asyncio.gather(*(client.submit(body, key) for client in clients))
    assert len({answer.id for answer in answers}) == 1
    sql = "SELECT count(*) FROM work_items WHERE idempotency_key = %(key)s"
    assert recount.value(sql, key=key) == 1
    assert recount.kinds(answers[0].id).count("work_item.created") == 1
    with pytest.raises(ProblemError) as other:
        await alice.submit({**body, "title": "Something else"}, key)
    assert other.value.status == 422
    assert other.value.problem["type"].endswith("/idempotency-mismatch")
    await alice.cancel(answers[0].id)
    await alice.until(answers[0].id, {"cancelled"}, 30)
    assert recount.value(sql, key=key) == 1
    expect_well(recount, [answers[0].id])


async def test_sixty_at_once_each_end_exactly_once(alice: User, anton: User, gina: User, recount: Recount) -> None:
    """Of two companies, some decided by a human, some that fail by themselves."""
    for owner in (alice, gina):
        await owner.assistant(work.assistant("counted", COUNTED))
    started = time.monotonic()

    async def one(number: int) -> tuple[str, str]:
        owner = gina if number % 3 == 0 else alice
        level = "L3" if owner is alice and number % 10 == 1 else "L0"
        exit_code = 3 if number % 7 == 0 else 0
        asked = await owner.submit(work.item("counted", level, f"Number {number}", parameters={"exit": exit_code}))
        if level == "L3":
            await anton.decide(await anton.approval_of(asked.id, 300))
        done = await owner.ended(asked.id, 600, pause=1.0)
        assert done.status == ("failed" if exit_code else "succeeded"), done
        assert (await owner.output(asked.id)).strip() == str(asked.id)
        return str(asked.id), done.status

    ended = await asyncio.gather(*(one(number) for number in range(ITEMS)))
    items = [item for item, _ in ended]
    counted = recount.value(
        "SELECT count(*) FROM audit_events WHERE work_item_id = ANY(%(items)s::uuid[]) AND kind = ANY(%(kinds)s)",
        items=items,
        kinds=TERMINAL,
    )
    print(f"items={len(set(items))} terminal_events={counted} seconds={time.monotonic() - started:.0f}")
    assert counted == len(set(items)) == ITEMS
    expect_well(recount, [UUID(item) for item in items])
