"""Prices over HTTP and by the command's route."""

from __future__ import annotations

from models.domain.rate_card import RateCard
from models.services import rate_cards
from models.storage.db import Database
from tests.api.conftest import Client
from tests.fixtures.companies import Company


async def test_prices_are_listed_and_shown(api: Client, acme: Company, globex: Company, db: Database) -> None:
    at = await rate_cards.moment(db)
    for output in (2_000_000_000, 2_500_000_000):
        made = [RateCard(model=name, effective_from=at, source="a test", input=150_000_001, output=output)
                for name in ("a/x", "a/y:free", "b/z")]  # fmt: skip
        await rate_cards.add(db, made)
    page = (await api.get("/v1/prices?limit=2", acme.requester)).ok()
    assert [card["model"] for card in page["items"]] == ["a/x", "a/y:free"]
    (last,) = (await api.get(f"/v1/prices?cursor={page['next_cursor']}", globex.auditor)).ok()["items"]
    assert (last["model"], last["version"], last["input"], last["output_nano"]) == (
        "b/z", 2, "0.150000001 USD", 2_500_000_000)  # fmt: skip
    free = (await api.get("/v1/prices?model=FREE", acme.requester)).ok()["items"]
    assert [card["model"] for card in free] == ["a/y:free"]
    history = (await api.get("/v1/prices/a/y:free", acme.requester)).ok()["items"]
    assert [card["output"] for card in history] == ["2.50 USD", "2.00 USD"]
    (await api.get("/v1/prices/a/none", acme.requester)).problem(404)
    (await api.get("/v1/prices?cursor=%21", acme.requester)).problem(422)
