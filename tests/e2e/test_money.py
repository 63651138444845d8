"""No money: the item waits and says so; it is woken when there is some, the oldest first."""

from __future__ import annotations

import pytest

from tests.e2e import work
from tests.e2e.client import User
from tests.e2e.recount import Recount, expect_well

pytestmark = [pytest.mark.stack, pytest.mark.docker, pytest.mark.timeout(300)]


async def test_an_item_without_budget_waits_and_is_woken(alice: User, armin: User, recount: Recount) -> None:
    poor = await alice.assistant(work.assistant("poor", work.SLEEPER))
    await armin.set_budget("assistant", "day", "0.0001 USD", assistant_id=str(poor.id))
    asked = await alice.submit(work.item(poor.slug, parameters={"seconds": 0.5}))
    await alice.until(asked.id, {"awaiting_budget"}, 30)
    (said,) = [event for event in await alice.timeline(asked.id) if event.kind == "work_item.awaiting_budget"]
    assert "budget" in said.summary.lower()
    assert recount.value("SELECT count(*) FROM reservations WHERE work_item_id = %(item)s", item=asked.id) == 0
    await armin.set_budget("assistant", "day", "1.00 USD", assistant_id=str(poor.id))
    done = await alice.until(asked.id, {"succeeded"}, 60)
    assert 0 < (done.cost_nano or 0) <= done.worst_case_nano
    expect_well(recount, [asked.id])


async def test_money_that_comes_back_goes_to_all_who_wait(alice: User, armin: User, recount: Recount) -> None:
    thrifty = await alice.assistant(work.assistant("thrifty", work.SLEEPER))
    first = await alice.submit(work.item(thrifty.slug, parameters={"seconds": 3}))
    # Room for one at a time, whatever the earlier ones have cost.
    limit = f"{first.worst_case_nano * 1.6 / 10**9:.9f} USD"
    await armin.set_budget("assistant", "day", limit, assistant_id=str(thrifty.id))
    await alice.until(first.id, {"running"}, 60)
    later = [await alice.submit(work.item(thrifty.slug, parameters={"seconds": 0.5})) for _ in range(3)]
    for each in later:
        await alice.until(each.id, {"awaiting_budget"}, 30)
    items = [first.id, *(each.id for each in later)]
    for each in items:
        await alice.until(each, {"succeeded"}, 120)
    # Never two at once: each was reserved after the one before had been settled.
    steps = recount.rows(
        "SELECT kind FROM audit_events WHERE work_item_id = ANY(%(items)s)"
        " AND kind IN ('budget.reserved', 'work_item.succeeded') ORDER BY seq",
        items=items,
    )
    assert [step["kind"] for step in steps] == ["budget.reserved", "work_item.succeeded"] * len(items)
    expect_well(recount, items)
