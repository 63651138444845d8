"""Budgets: set a hard limit, read how much of each is used."""

from __future__ import annotations

from fastapi import APIRouter

from api.auth import Caller
from api.deps import Given
from api.schemas.budgets import BudgetAnswer, BudgetBody, BudgetList
from api.schemas.fields import nano
from models.services import budgets

router = APIRouter(prefix="/v1/budgets", tags=["budgets"])


@router.put("")
async def set_budget(body: BudgetBody, principal: Caller, given: Given) -> BudgetAnswer:
    """Create or change one hard limit of the caller's tenant (of everything: the holding alone)."""
    async with given.db.session_for(principal) as session:
        view = await budgets.set_budget(
            session,
            principal,
            scope=body.scope,
            window=body.window,
            limit_nano=nano(body.limit),
            assistant_id=body.assistant_id,
        )
    return BudgetAnswer.of(view)


@router.get("")
async def list_budgets(principal: Caller, given: Given) -> BudgetList:
    """The budgets of the caller's tenant and of everything, with their use in the window of now."""
    async with given.db.session_for(principal) as session:
        views = await budgets.list_budgets(session, principal)
    return BudgetList(items=[BudgetAnswer.of(view) for view in views])
