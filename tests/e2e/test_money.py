"""No money: the item waits and says so; it is woken when there is some, the oldest first."""

from __future__ import annotations

import pytest

from tests.e2e import work
from tests.e2e.client import User
from tests.e2e.recount import Recount, expect_well

pytestmark = [pytest.mark.stack, pytest.mark.docker, pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]


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


async def test_money_that_comes_back_goes_to_who_waited_longest(alice: User, armin: User, recount: Recount) -> None:
    thrifty = await alice.assistant(work.assistant("thrifty", work.SLEEPER))
    first = await alice.submit(work.item(thrifty.slug, parameters={"seconds": 3}))
    worst = first.worst_case_nano
    # Room for one at a time, whatever the earlier ones have cost.
    limit = f"{worst * 1.6 / 10**9:.9f} USD"
    await armin.set_budget("assistant", "day", limit, assistant_id=str(thrifty.id))
    await alice.until(first.id, {"running"}, 60)
    later = [await alice.submit(work.item(thrifty.slug, parameters={"seconds": 0.5})) for _ in range(3)]
    for each in later:
        await alice.until(each.id, {"awaiting_budget"}, 30)
    for each in (first, *later):
        await alice.until(each.id, {"succeeded"}, 120)
    started = recount.rows(
        "SELECT work_item_id FROM audit_events WHERE work_item_id = ANY(%(items)s) AND kind = 'run.started'"
        " ORDER BY seq",
        items=[first.id, *(each.id for each in later)],
    )
    assert [row["work_item_id"] for row in started] == [first.id, *(each.id for each in later)]
    expect_well(recount, [first.id, *(each.id for each in later)])
