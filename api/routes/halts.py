"""The kill switch: set, lifted, listed."""

from __future__ import annotations

from fastapi import APIRouter

from api.auth import Caller
from api.deps import Given
from api.schemas.halts import HaltBody, HaltList, LiftBody
from models.domain.views import HaltState
from models.services import halt

router = APIRouter(prefix="/v1/halts", tags=["halts"])


@router.post("")
async def set_halt(body: HaltBody, principal: Caller, given: Given) -> HaltState:
    """Halt everything, a company or an assistant: every warrant from before is void from this moment."""
    async with given.db.session_for(principal) as session:
        return await halt.set_halt(
            session,
            principal,
            scope=body.scope,
            tenant_id=body.tenant_id,
            assistant_id=body.assistant_id,
            mode=body.mode,
            reason=body.reason,
        )


@router.post("/lift")
async def lift(body: LiftBody, principal: Caller, given: Given) -> HaltState:
    """Lift a halt; what it held back goes on."""
    async with given.db.session_for(principal) as session:
        return await halt.lift(
            session,
            principal,
            scope=body.scope,
            tenant_id=body.tenant_id,
            assistant_id=body.assistant_id,
            reason=body.reason,
        )


@router.get("")
async def list_halts(principal: Caller, given: Given, active: bool = False) -> HaltList:
    """Halts that concern the caller's company."""
    async with given.db.session_for(principal) as session:
        return HaltList(items=await halt.list_halts(session, principal, active_only=active))
