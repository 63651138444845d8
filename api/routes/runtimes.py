"""Host runtimes: listed, and the one-time token by which a new one enrols (with the broker)."""

from __future__ import annotations

from fastapi import APIRouter

from api.auth import Caller
from api.deps import Given
from api.schemas.runtimes import EnrolmentToken, RuntimeAnswer, RuntimeList
from models.repositories import runtimes
from models.services import enrolment, tenants

router = APIRouter(prefix="/v1/runtimes", tags=["runtimes"])

TOKEN_SECONDS = 900


@router.get("")
async def list_runtimes(principal: Caller, given: Given) -> RuntimeList:
    """Host runtimes that the caller's company sees, with what each proved at its start."""
    async with given.db.session_for(principal) as session:
        companies = await tenants.list_visible(session, principal)
        rows = [row for company in companies for row in await runtimes.all_of(session, company.tenant_id)]
    return RuntimeList(items=[RuntimeAnswer.of(row) for row in rows])


@router.post("/enrolment-tokens", status_code=201)
async def create_token(principal: Caller, given: Given) -> EnrolmentToken:
    """A one-time token by which one runtime of the caller's company enrols, good for 15 minutes."""
    async with given.db.session_for(principal) as session:
        return EnrolmentToken(token=await enrolment.create_token(session, principal), expires_in=TOKEN_SECONDS)
