"""Rate cards in a real database: versions, what is in force, who comes over whom."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.exc import ProgrammingError

from models.domain.errors import InvalidInput, NotFound
from models.domain.rate_card import RateCard
from models.domain.scripted import SCRIPTED_MODEL
from models.services import rate_cards
from models.services.rate_cards import RateCards
from models.storage.db import Database
from tests.fixtures.companies import Company
from workers.prices import fill, packaged


def card(model: str, at: datetime, **values: Any) -> RateCard:
    given: dict[str, Any] = {"input": 100, "output": 200, "source": "a test", **values}
    return RateCard(model=model, effective_from=at, **given)


async def test_an_unchanged_card_makes_no_new_version(db: Database) -> None:
    now = await rate_cards.moment(db)
    assert await rate_cards.add(db, [card("a/x", now), card("a/y", now)]) == 2
    later = now + timedelta(seconds=1)
    assert await rate_cards.add(db, [card("a/x", later, source="another"), card("a/y", now, output=201)]) == 1
    cards = RateCards(db)
    assert await cards.refresh()
    assert not await cards.refresh()
    x, y = cards.get("a/x"), cards.get("a/y")
    assert x is not None
    assert y is not None
    assert (x.version, x.effective_from, x.source) == (1, now, "a test")
    assert (y.version, y.output) == (2, 201)
    assert cards.get("a/z") is None
    assert cards.models() == ["a/x", "a/y"]


async def test_a_price_of_the_future_waits_for_its_moment(db: Database) -> None:
    now = await rate_cards.moment(db)
    begins = now + timedelta(days=1)
    await rate_cards.add(db, [card("a/x", now)])
    await rate_cards.add(db, [card("a/x", begins, input=900)])
    cards = RateCards(db)
    await cards.refresh()
    today, tomorrow = cards.get("a/x"), cards.get("a/x", begins)
    assert today is not None
    assert tomorrow is not None
    assert (today.input, tomorrow.input) == (100, 900)


async def test_what_an_upstream_lists_stays_over_a_package(db: Database) -> None:
    now = await rate_cards.moment(db)
    await rate_cards.add(db, [card("a/x", now, source=f"{rate_cards.LISTED_BY_UPSTREAM}an upstream", input=5)])
    assert await rate_cards.add(db, [card("a/x", now)], over_listed=False) == 0
    assert await rate_cards.add(db, [card("a/x", now, source="list of another")]) == 1


async def test_a_process_cannot_change_a_price(db: Database, acme: Company) -> None:
    await rate_cards.add(db, [card("a/x", await rate_cards.moment(db))])
    insert = "INSERT INTO rate_cards (model) VALUES ('x')"
    for statement in ("UPDATE rate_cards SET card = '{}'", "DELETE FROM rate_cards", insert):
        with pytest.raises(ProgrammingError):
            await db.change(statement)


async def test_pages_are_in_the_order_of_names(db: Database, acme: Company) -> None:
    now = await rate_cards.moment(db)
    names = ["B/one", "a/One", "a/one", "a/two", "größer/x"]
    await rate_cards.add(db, [card(name, now) for name in names])
    await rate_cards.add(db, [card("a/two", now + timedelta(days=1), input=7)])
    found: list[RateCard] = []
    async with db.session_for(acme.requester) as session:
        cursor = None
        while True:
            page, cursor = await rate_cards.list_page(session, cursor, 2)
            found += page
            if cursor is None:
                break
        assert [each.model for each in found] == sorted(names)
        assert all(each.input == 100 for each in found)
        page, _ = await rate_cards.list_page(session, containing="ONE")
        assert [each.model for each in page] == ["B/one", "a/One", "a/one"]
        assert [each.version for each in await rate_cards.history(session, "a/two")] == [2, 1]
        with pytest.raises(NotFound):
            await rate_cards.history(session, "a/none")
        for cursor in ("?", "gA", "AA"):
            with pytest.raises(InvalidInput):
                await rate_cards.list_page(session, cursor)


async def test_set_up_writes_cards_once(db: Database) -> None:
    added = await fill(db)
    assert added > 1000
    assert await fill(db) == 0
    cards = RateCards(db)
    await cards.refresh()
    assert len(cards.models()) == added
    for model in ("openai/gpt-4o", "gpt-4o", SCRIPTED_MODEL):
        found = cards.get(model)
        assert found is not None
        assert found.input > 0
        assert found.output > 0


async def test_packaged_cards_are_one_a_model(db: Database) -> None:
    names = [each.model for each in packaged(await rate_cards.moment(db))]
    assert len(names) == len(set(names))
