"""The live timeline of a work item, as a page or as it comes, and the ledger of what it cost."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.auth import Caller
from api.deps import Deps, Given
from api.schemas.events import CostAnswer, EventPage, LedgerLine, LedgerPage, LiveEvent
from api.schemas.fields import sse
from api.schemas.paging import Cursor, Limit
from models.domain.errors import InvalidInput
from models.domain.principal import Principal
from models.services import item_costs, item_events, work_items
from models.tables.work import WorkItemRow

router = APIRouter(prefix="/v1/work-items/{work_item_id}", tags=["work items"])

HEARTBEAT_SECONDS = 15.0
"""A comment this often keeps proxies from closing a stream in which nothing happens."""
MAX_SEQ = 2**53


@router.get(
    "/events",
    response_model=EventPage,
    responses={
        200: {
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
            "description": "A page, or server-sent events for `Accept: text/event-stream`.",
        }
    },
)
async def events(
    work_item_id: UUID,
    request: Request,
    response: Response,
    principal: Caller,
    given: Given,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ, description="Only events beyond this seq.")] = 0,
    limit: Limit = 50,
    last_event_id: Annotated[
        str | None, Header(max_length=64, description="Server-sent events: go on after this one.")
    ] = None,
) -> EventPage | StreamingResponse:
    """What happens in the work item, in one order: output, progress, model calls, actions, approvals, resource use.

    As server-sent events (`Accept: text/event-stream`) it goes on until the item is final. Their name is the event's
    kind, their id its seq; the last one is `end`, with the item's status. A page is the answer to all else.
    """
    if "text/event-stream" in request.headers.get("accept", ""):
        async with given.db.session_for(principal) as session:
            item = await work_items.read(session, principal, work_item_id)
        stream = _stream(given, principal, item, max(after, _seq(last_event_id)))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)
    async with given.db.session_for(principal) as session:
        rows = await item_events.page(session, principal, work_item_id, after, limit)
    response.headers["Vary"] = "Accept"
    items = [LiveEvent.of(row) for row in rows]
    return EventPage(items=items, next_after=items[-1].seq if len(items) == limit else None)


def _seq(last_event_id: str | None) -> int:
    if not last_event_id:
        return 0
    if last_event_id.isascii() and last_event_id.isdigit() and int(last_event_id) <= MAX_SEQ:
        return int(last_event_id)
    what = "is the id of an event of this stream, such as 12"
    raise InvalidInput(f"Last-Event-ID: {what}", errors=[{"where": "header.Last-Event-ID", "what": what}])


async def _stream(given: Deps, principal: Principal, item: WorkItemRow, after: int) -> AsyncGenerator[bytes]:
    yield b"retry: 1000\n\n"
    said = time.monotonic()
    batches = item_events.follow(given.db, given.cache, principal, item, after)
    try:
        async for rows in batches:
            for row in rows:
                event = LiveEvent.of(row)
                yield sse(row.kind, event.model_dump(mode="json"), str(row.seq))
            if not rows and time.monotonic() - said < HEARTBEAT_SECONDS:
                continue
            if not rows:
                yield b": still here\n\n"
            said = time.monotonic()
    finally:
        await batches.aclose()
    async with given.db.session_for(principal) as session:
        item = await work_items.read(session, principal, item.id)
    yield sse("end", {"status": item.status, "outcome": item.outcome})


@router.get("/costs")
async def costs(
    work_item_id: UUID, principal: Caller, given: Given, cursor: Cursor = None, limit: Limit = 50
) -> LedgerPage:
    """What the work item has cost, and the ledger's immutable rows of its model calls, the oldest first."""
    async with given.db.session_for(principal) as session:
        rows, next_cursor = await item_costs.page(session, principal, work_item_id, cursor, limit)
        split = await item_costs.split(session, work_item_id)
    items = [LedgerLine.of(row) for row in rows]
    return LedgerPage(costs=CostAnswer.of(split), items=items, next_cursor=next_cursor)
