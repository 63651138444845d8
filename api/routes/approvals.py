"""Approvals: what the caller may decide, one with its whole context, and the decision."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, BackgroundTasks

from api.auth import Caller
from api.deps import Given, hurry
from api.schemas.approvals import ApprovalPage, DecisionAnswer, DecisionBody
from api.schemas.paging import Cursor, Limit
from models.domain.views import ApprovalContext
from models.services import approvals

router = APIRouter(prefix="/v1/approvals", tags=["approvals"])


@router.get("")
async def list_mine(principal: Caller, given: Given, cursor: Cursor = None, limit: Limit = 50) -> ApprovalPage:
    """Open approvals that the caller may decide, newest first; a holding's approver sees its subsidiaries' too."""
    async with given.db.session_for(principal) as session:
        items, next_cursor = await approvals.list_mine(session, principal, cursor, limit)
    return ApprovalPage(items=items, next_cursor=next_cursor)


@router.get("/{approval_id}")
async def read(approval_id: UUID, principal: Caller, given: Given) -> ApprovalContext:
    """One approval with everything that a human needs to decide."""
    async with given.db.session_for(principal) as session:
        return await approvals.read(session, principal, approval_id)


@router.post("/{approval_id}/decision")
async def decide(
    approval_id: UUID, body: DecisionBody, principal: Caller, given: Given, background: BackgroundTasks
) -> DecisionAnswer:
    """Approve or reject. The outcome that the vote makes stands when this answers."""
    row = await approvals.decide(
        given.db,
        principal,
        body.tenant_id,
        approval_id,
        verdict=body.verdict,
        reason=body.reason,
        digest=body.digest,
        channel="api",
        edits=body.edits.to_domain() if body.edits is not None else None,
    )
    if row.action_id is not None:
        await given.cache.publish(row.tenant_id, f"action:{row.action_id}")
    if row.work_item_id is not None:
        await given.cache.publish(row.tenant_id, f"item:{row.work_item_id}")
        background.add_task(hurry, given.fast_path.signal_work_item, row.tenant_id, row.work_item_id)
    background.add_task(hurry, given.fast_path.signal_approval, row.id)
    return DecisionAnswer.of(row)
