"""Work items: created, tried, read, listed, cancelled, and what happened to them."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Header, Query, Request, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from api.auth import Caller
from api.deps import Given, hurry
from api.problems import BadRequestError
from api.schemas.paging import Cursor, Limit
from api.schemas.work_items import (
    CancelBody,
    DryRunAnswer,
    EventAnswer,
    Timeline,
    WorkItemAnswer,
    WorkItemBody,
    WorkItemLine,
    WorkItemPage,
)
from models.domain.errors import InvalidInput
from models.domain.risk import RiskLevel
from models.domain.work_item import WorkItemStatus
from models.services import item_costs, uploads, work_items
from models.tables.work import WorkItemRow

router = APIRouter(prefix="/v1/work-items", tags=["work items"])

IdempotencyKey = Annotated[
    str | None,
    Header(
        description="Your own name for this request, up to 200 printable ASCII characters. Same key, same item.",
    ),
]


@router.post(
    "", status_code=201, responses={200: {"model": WorkItemAnswer, "description": "The key's item was there already."}}
)
async def create(
    body: WorkItemBody,
    request: Request,
    response: Response,
    principal: Caller,
    given: Given,
    background: BackgroundTasks,
    idempotency_key: IdempotencyKey = None,
) -> WorkItemAnswer:
    """Ask for a piece of work. With the same `Idempotency-Key` it answers the same item, whatever happened between."""
    key = _one_key(request, idempotency_key)
    new = body.to_domain()
    async with given.db.session_for(principal) as session:
        await uploads.require_uploads(session, principal.tenant_id, _wanted(body))
        row, created = await work_items.create_work_item(session, principal, new, key)
        answer = await _whole(session, row)
    background.add_task(hurry, given.fast_path.start_work_item, row.tenant_id, row.id)
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"/v1/work-items/{row.id}"
    return answer


@router.post("/dry-run")
async def dry_run(body: WorkItemBody, principal: Caller, given: Given) -> DryRunAnswer:
    """What risk and worst-case cost the work item would have, and who would decide; nothing is written."""
    async with given.db.session_for(principal) as session:
        await uploads.require_uploads(session, principal.tenant_id, _wanted(body))
        found = await work_items.dry_run(session, principal, body.to_domain())
    return DryRunAnswer.of(found)


@router.get("")
async def list_items(
    principal: Caller,
    given: Given,
    status: WorkItemStatus | None = None,
    level: RiskLevel | None = None,
    assistant_id: UUID | None = None,
    requester_id: UUID | None = None,
    tenant_id: UUID | None = None,
    awaiting: Annotated[str | None, Query(pattern="^(approval|budget|action)$")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> WorkItemPage:
    """Work items of the caller's company (a holding's: of its subsidiaries too), newest first."""
    wanted = work_items.Filter(
        status=status,
        level=level,
        assistant_id=assistant_id,
        requester_id=requester_id,
        tenant_id=tenant_id,
        awaiting=awaiting,
    )
    async with given.db.session_for(principal) as session:
        rows, next_cursor = await work_items.list_page(session, principal, wanted, cursor, limit)
    return WorkItemPage(items=[WorkItemLine.of(row) for row in rows], next_cursor=next_cursor)


@router.get("/{work_item_id}")
async def read(work_item_id: UUID, principal: Caller, given: Given) -> WorkItemAnswer:
    """One work item, whole."""
    async with given.db.session_for(principal) as session:
        row = await work_items.read(session, principal, work_item_id)
        return await _whole(session, row)


@router.post("/{work_item_id}/cancel", status_code=202)
async def cancel(
    work_item_id: UUID, body: CancelBody, principal: Caller, given: Given, background: BackgroundTasks
) -> WorkItemAnswer:
    """Ask that the work item ends, wherever it is; a run is told at once. The first request stays."""
    async with work_items.acting_on(given.db, principal, work_item_id) as session:
        row = await work_items.request_cancel(session, principal, work_item_id, body.reason)
        answer = await _whole(session, row)
    background.add_task(hurry, given.fast_path.signal_work_item, row.tenant_id, row.id)
    return answer


@router.get("/{work_item_id}/timeline")
async def timeline(
    work_item_id: UUID,
    principal: Caller,
    given: Given,
    after: Annotated[int, Query(ge=0, le=2**53, description="`next_after` of the page before.")] = 0,
    limit: Limit = 50,
) -> Timeline:
    """What happened to the work item, in order: its events of the audit trail."""
    async with given.db.session_for(principal) as session:
        events = await work_items.timeline(session, principal, work_item_id, after, limit)
    items = [EventAnswer.of(event) for event in events]
    return Timeline(items=items, next_after=items[-1].seq if len(items) == limit else None)


async def _whole(session: AsyncSession, row: WorkItemRow) -> WorkItemAnswer:
    return WorkItemAnswer.whole(row, await work_items.view(session, row.id), await item_costs.split(session, row.id))


def _one_key(request: Request, key: str | None) -> str:
    if len(request.headers.getlist("idempotency-key")) > 1:
        what = "stands twice; one request has one"
        raise InvalidInput(f"Idempotency-Key: {what}", errors=[{"where": "header.Idempotency-Key", "what": what}])
    if not key:
        raise BadRequestError(
            "Send an Idempotency-Key header, so that a repeated request makes no second work item.",
            errors=[{"where": "header.Idempotency-Key", "what": "is missing"}],
        )
    return key


def _wanted(body: WorkItemBody) -> dict[str, uploads.Uploaded]:
    return {
        f"body.inputs[{index}]": uploads.Uploaded(sha256=file.sha256, size=file.size)
        for index, file in enumerate(body.inputs)
    }
