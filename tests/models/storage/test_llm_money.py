from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from models.services.ids import new_id
from models.storage.llm_money import Hold, LlmMoney, Money, RedisAwayError, Settlement
from tests.fixtures.valkey import ValkeyServer


@pytest.fixture
async def money(valkey: ValkeyServer) -> AsyncIterator[LlmMoney]:
    opened = LlmMoney(valkey.url)
    yield opened
    await opened.shut()


def hold(reservation, amount=100, call=None, **changes: Any) -> Hold:
    values: dict[str, Any] = {
        "reservation": reservation, "call": call or new_id(), "most": amount, "least": amount, "most_tokens": 10,
        "least_tokens": 10, "rpm": 10_000, "tpm": 10**9, "about": "{}",
    }  # fmt: skip
    return Hold(**{**values, **changes})


def settlement(reservation, call, amount: int | None = 40, kind: str = "final") -> Settlement:
    return Settlement(reservation, call, amount, 5, kind, '{"is": "a fact"}')


async def opened(money: LlmMoney, limit: int = 1000, charged: int = 0):
    reservation = new_id()
    found = await money.open(reservation, await money.identity(), 1, limit, charged)
    assert found.state is Money.OPEN
    return reservation


async def test_a_hold_becomes_a_charge_once(money: LlmMoney) -> None:
    reservation = await opened(money)
    asked = hold(reservation)
    assert (await money.hold(asked)).numbers == (100, 10)
    assert (await money.hold(asked)).numbers == (100, 10)
    assert await money.standing(reservation) == {"limit": 1000, "charged": 0, "held": 100, "closed": 0}
    assert (await money.settle(settlement(reservation, asked.call))).numbers == (40, 100)
    assert (await money.settle(settlement(reservation, asked.call))).state is Money.DONE
    assert await money.standing(reservation) == {"limit": 1000, "charged": 40, "held": 0, "closed": 0}
    [entry] = await money.entries()
    assert entry.fields == {
        "call": str(asked.call), "amount": "40", "held": "100", "wanted": "40", "kind": "final", "about": "{}",
        "facts": '{"is": "a fact"}',
    }  # fmt: skip
    await money.taken([entry.id])
    assert await money.entries() == []


async def test_what_goes_beyond_the_hold_is_taken_from_what_is_free_and_no_further(money: LlmMoney) -> None:
    reservation = await opened(money, limit=150)
    first, second = hold(reservation), hold(reservation, 30)
    await money.hold(first)
    await money.hold(second)
    assert (await money.settle(settlement(reservation, first.call, 500))).numbers == (120, 100)
    assert await money.standing(reservation) == {"limit": 150, "charged": 120, "held": 30, "closed": 0}


async def test_a_hold_takes_what_is_free_where_it_may(money: LlmMoney) -> None:
    reservation = await opened(money, limit=150)
    assert (await money.hold(hold(reservation, 100, least=1))).numbers == (100, 10)
    assert (await money.hold(hold(reservation, 100, least=50))).numbers == (50, 10)
    refused = await money.hold(hold(reservation, 100, least=1))
    assert (refused.state, refused.numbers) == (Money.SHORT, (150, 0, 150))


async def test_rates_are_counted_and_given_back(money: LlmMoney) -> None:
    reservation = await opened(money)
    first = hold(reservation, 1, tpm=15)
    await money.hold(first)
    refused = await money.hold(hold(reservation, 1, tpm=15))
    assert (refused.state, refused.numbers[:2]) == (Money.TPM, (15, 10))
    assert (await money.hold(hold(reservation, 1, tpm=15, least_tokens=1))).numbers == (1, 5)
    await money.settle(settlement(reservation, first.call, 1))
    assert (await money.hold(hold(reservation, 1, tpm=20))).state is Money.HELD
    refused = await money.hold(hold(reservation, 1, rpm=3))
    assert (refused.state, refused.numbers[:2]) == (Money.RPM, (3, 3))
    assert 1 <= refused.numbers[2] <= 60


@pytest.mark.parametrize("fits", [1, 7, 50])
async def test_two_hundred_at_once_on_a_grant_for_exactly_n(money: LlmMoney, fits: int, valkey: ValkeyServer) -> None:
    reservation = await opened(money, limit=fits * 100 + 99)
    other = LlmMoney(valkey.url)
    found = await asyncio.gather(*((money, other)[i % 2].hold(hold(reservation)) for i in range(200)))
    await other.shut()
    assert sum(answer.state is Money.HELD for answer in found) == fits
    assert sum(answer.state is Money.SHORT for answer in found) == 200 - fits


async def test_closing_lets_nothing_more_be_held_and_tells_what_is_under_way(money: LlmMoney) -> None:
    reservation = await opened(money)
    asked, identity = hold(reservation), await money.identity()
    await money.hold(asked)
    closed = await money.close(reservation, identity, 1)
    assert (closed.state, closed.numbers, closed.calls) == (Money.CLOSED, (0, 0), (str(asked.call),))
    assert (await money.hold(hold(reservation))).state is Money.CLOSED
    assert (await money.settle(settlement(reservation, asked.call, None, "estimated"))).numbers == (100, 100)
    closed = await money.close(reservation, identity, 1)
    assert (closed.numbers[0], closed.calls) == (100, ())


async def test_an_opening_that_comes_after_its_close_holds_nothing(money: LlmMoney) -> None:
    """A gateway that stopped between PostgreSQL and Redis wakes when the item is settled."""
    reservation, identity = new_id(), await money.identity()
    assert (await money.close(reservation, identity, 1)).state is Money.NEVER
    await money.open(reservation, identity, 1, 1000, 0)
    assert (await money.hold(hold(reservation))).state is Money.CLOSED
    assert (await money.close(reservation, identity, 1)).numbers[0] == 0
    await money.open(reservation, identity, 2, 1000, 0)  # a later attempt of the run
    assert (await money.hold(hold(reservation))).state is Money.HELD


async def test_an_opening_is_written_over_by_a_later_one_alone(money: LlmMoney) -> None:
    reservation = await opened(money)
    identity = await money.identity()
    await money.hold(hold(reservation))
    await money.open(reservation, identity, 1, 1000, 0)
    assert (await money.standing(reservation))["held"] == 100
    await money.open(reservation, identity, 3, 1000, 600)
    assert await money.standing(reservation) == {"limit": 1000, "charged": 600, "held": 0, "closed": 0}
    await money.open(reservation, identity, 2, 1000, 0)
    assert (await money.standing(reservation))["charged"] == 600
    assert (await money.close(reservation, identity, 4)).state is Money.NEVER
    assert (await money.close(reservation, identity, 2)).state is Money.LOST


async def test_a_memory_that_was_wiped_is_another_life(money: LlmMoney, valkey: ValkeyServer) -> None:
    reservation, identity = await opened(money), await money.identity()
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    assert (await money.hold(hold(reservation))).state is Money.MISSING
    assert (await money.open(reservation, identity, 1, 1000, 0)).state is Money.LOST
    assert (await money.close(reservation, identity, 1)).state is Money.LOST
    later = LlmMoney(valkey.url)
    assert await later.identity() != identity
    assert (await later.open(reservation, identity, 1, 1000, 0)).state is Money.LOST
    await later.shut()


async def test_amounts_are_exact_up_to_nine_million_dollars(money: LlmMoney) -> None:
    most = 2**53 - 1
    reservation = await opened(money, limit=10**18)
    assert (await money.hold(hold(reservation, most - 1))).numbers[0] == most - 1
    last = hold(reservation, 1)
    assert (await money.hold(last)).numbers[0] == 1
    assert (await money.hold(hold(reservation, 1))).state is Money.SHORT
    assert (await money.standing(reservation))["held"] == most
    await money.settle(settlement(reservation, last.call, 1))
    assert (await money.entries())[0].fields["amount"] == "1"


async def test_redis_away_is_said(valkey: ValkeyServer) -> None:
    away = LlmMoney(valkey.url.replace(f":{valkey.port}", ":1"))
    with pytest.raises(RedisAwayError) as found:
        await away.identity()
    assert not found.value.unsure


@pytest.mark.parametrize("user", ["reader:reads-only", "reader:another-word"])
async def test_a_redis_that_says_no_is_left_without_connections(valkey: ValkeyServer, user: str) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        client.execute_command("ACL", "SETUSER", "reader", "on", ">reads-only", "~*", "+info")
        mine = client.client_list()
        refused = LlmMoney(f"redis://{user}@127.0.0.1:{valkey.port}/0")
        for _ in range(5):
            with pytest.raises(RedisAwayError, match=r"NOPERM|WRONGPASS"):
                await refused.identity()
        async with asyncio.timeout(10):
            while len(client.client_list()) > len(mine):  # noqa: ASYNC110 (the server tells nobody)
                await asyncio.sleep(0.01)


async def test_who_goes_away_takes_nobodys_answer(money: LlmMoney) -> None:
    reservation = await opened(money)
    gone = asyncio.ensure_future(money.hold(hold(reservation)))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await money.standing(reservation))["limit"] == 1000
