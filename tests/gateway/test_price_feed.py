"""What a gateway reads from its upstream's own list, over real HTTP into a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from api.gateway.price_feed import PriceFeed
from models.services import rate_cards
from models.services.price_sources import NoPriceError
from models.services.rate_cards import RateCards
from models.storage.db import Database


def entry(model: str, prompt: str) -> dict[str, Any]:
    return {"id": model, "pricing": {"prompt": prompt, "completion": "0.000002"}}


class Upstream:
    def __init__(self) -> None:
        self.url = ""
        self.listed: Any = {"data": [entry("a/x", "0.000001"), entry("b/y:free", "0"), entry("auto", "-1")]}
        self.endpoints: dict[str, list[dict[str, Any]]] = {}
        self.keys: set[str | None] = set()

    async def models(self, request: web.Request) -> web.Response:
        self.keys.add(request.headers.get("Authorization"))
        return web.json_response(self.listed)

    async def of_model(self, request: web.Request) -> web.Response:
        found = self.endpoints.get(request.match_info["model"])
        if found is None:
            return web.Response(status=404)
        return web.json_response({"data": {"endpoints": found}})


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    served = Upstream()
    app = web.Application()
    app.router.add_get("/v1/models", served.models)
    app.router.add_get("/v1/models/{model:.+}/endpoints", served.of_model)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield served
    await runner.cleanup()


@pytest.fixture
async def cards(db: Database) -> RateCards:
    return RateCards(db)


@pytest.fixture
async def feed(db: Database, upstream: Upstream) -> PriceFeed:
    return PriceFeed(db, upstream.url, "k")


async def price(cards: RateCards, model: str) -> int | None:
    await cards.refresh()
    card = cards.get(model)
    return None if card is None else card.input


async def test_a_list_becomes_cards_once(feed: PriceFeed, cards: RateCards, upstream: Upstream) -> None:
    assert await feed.read() == 2
    assert await feed.read() == 0
    assert [await price(cards, model) for model in ("a/x", "b/y:free", "auto")] == [1_000_000_000, 0, None]
    assert upstream.keys == {"Bearer k"}
    upstream.listed["data"][0] = entry("a/x", "0.000003")
    assert await feed.read() == 1
    assert await price(cards, "a/x") == 3_000_000_000


async def test_the_dearest_endpoint_counts_and_an_unread_one_changes_nothing(
    feed: PriceFeed, cards: RateCards, upstream: Upstream
) -> None:
    dear, cheap = (entry("", prompt) for prompt in ("0.000009", "0.000001"))
    upstream.endpoints = {"a/x": [dear, cheap], "b/y:free": [entry("", "0")]}
    assert await feed.read() == 2
    assert await price(cards, "a/x") == 9_000_000_000
    del upstream.endpoints["b/y:free"]
    upstream.listed["data"][1] = entry("b/y:free", "0.000005")
    assert await feed.read() == 0
    assert await price(cards, "b/y:free") == 0


@pytest.mark.parametrize("listed", [{}, [], {"data": 5}])
async def test_a_list_of_another_shape_adds_nothing(
    feed: PriceFeed, cards: RateCards, upstream: Upstream, listed: Any
) -> None:
    upstream.listed = listed
    with pytest.raises(NoPriceError):
        await feed.read()
    await cards.refresh()
    assert cards.models() == []


async def test_what_the_upstream_lists_comes_over_the_package(
    db: Database, feed: PriceFeed, cards: RateCards, upstream: Upstream
) -> None:
    upstream.listed = {"data": [entry("openai/gpt-4o", "0.000007")]}
    await feed.read()
    await cards.refresh()
    card = cards.get("openai/gpt-4o")
    assert card is not None
    packaged = card.model_copy(update={"input": 1, "source": "a package"})
    assert await rate_cards.add(db, [packaged], over_listed=False) == 0


async def test_it_reads_until_it_is_told_to_stop(db: Database, upstream: Upstream, cards: RateCards) -> None:
    stop = asyncio.Event()
    reading = asyncio.create_task(PriceFeed(db, upstream.url, "k").run(stop))
    failing = asyncio.create_task(PriceFeed(db, upstream.url + "/elsewhere", "k").run(stop))
    async with asyncio.timeout(20):
        while await price(cards, "a/x") is None:  # noqa: ASYNC110 (the database is what is looked at)
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.gather(reading, failing)
