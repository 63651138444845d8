"""Prices of models: what calls are held and charged at. The same for every company."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.auth import Caller
from api.deps import Given
from api.schemas.paging import Cursor, Limit
from api.schemas.prices import PriceAnswer, PriceHistory, PricePage
from models.services import rate_cards

router = APIRouter(prefix="/v1/prices", tags=["prices"])

Containing = Annotated[str, Query(max_length=200, description="Models alone whose name contains this.")]
ModelName = Annotated[str, Path(min_length=1, max_length=256, description="As a request names it.")]


@router.get("")
async def list_prices(
    principal: Caller, given: Given, model: Containing = "", cursor: Cursor = None, limit: Limit = 50
) -> PricePage:
    """Prices in force, by the models' names. A model that is not here is refused by the gateway."""
    async with given.db.session_for(principal) as session:
        cards, next_cursor = await rate_cards.list_page(session, cursor, limit, model)
    return PricePage(items=[PriceAnswer.of(card) for card in cards], next_cursor=next_cursor)


@router.get("/{model:path}")
async def history(model: ModelName, principal: Caller, given: Given) -> PriceHistory:
    """A model's prices, newest version first."""
    async with given.db.session_for(principal) as session:
        return PriceHistory(items=[PriceAnswer.of(card) for card in await rate_cards.history(session, model)])
