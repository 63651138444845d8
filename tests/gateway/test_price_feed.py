"""What a gateway reads from its upstream's own list, over real HTTP into a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
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
async def feed(db: Database, cards: RateCards, upstream: Upstream) -> AsyncIterator[PriceFeed]:
    async with aiohttp.ClientSession() as http:
        yield PriceFeed(db, cards, http, upstream.url, {"Authorization": "Bearer k"})


def price(cards: RateCards, model: str) -> int | None:
    card = cards.get(model)
    return None if card is None else card.input


async def test_a_list_becomes_cards_once(feed: PriceFeed, cards: RateCards, upstream: Upstream) -> None:
    assert await feed.read() == 2
    assert await feed.read() == 0
    assert (price(cards, "a/x"), price(cards, "b/y:free"), price(cards, "auto")) == (1_000_000_000, 0, None)
    assert upstream.keys == {"Bearer k"}
    upstream.listed["data"][0] = entry("a/x", "0.000003")
    assert await feed.read() == 1
    assert price(cards, "a/x") == 3_000_000_000


async def test_the_dearest_endpoint_counts_and_an_unread_one_changes_nothing(
    feed: PriceFeed, cards: RateCards, upstream: Upstream
) -> None:
    dear, cheap = (entry("", prompt) for prompt in ("0.000009", "0.000001"))
    upstream.endpoints = {"a/x": [dear, cheap], "b/y:free": [entry("", "0")]}
    assert await feed.read() == 2
    assert price(cards, "a/x") == 9_000_000_000
    del upstream.endpoints["b/y:free"]
    upstream.listed["data"][1] = entry("b/y:free", "0.000005")
    assert await feed.read() == 0
    assert price(cards, "b/y:free") == 0


@pytest.mark.parametrize("listed", [{}, [], {"data": 5}])
async def test_a_list_of_another_shape_adds_nothing(
    feed: PriceFeed, cards: RateCards, upstream: Upstream, listed: Any
) -> None:
    upstream.listed = listed
    with pytest.raises(NoPriceError):
        await feed.read()
    assert cards.models() == []


async def test_what_the_upstream_lists_comes_over_the_package(
    db: Database, feed: PriceFeed, cards: RateCards, upstream: Upstream
) -> None:
    upstream.listed = {"data": [entry("openai/gpt-4o", "0.000007")]}
    await feed.read()
    card = cards.get("openai/gpt-4o")
    assert card is not None
    packaged = card.model_copy(update={"input": 1, "source": "a package"})
    assert await rate_cards.add(db, [packaged], over_listed=False) == 0
