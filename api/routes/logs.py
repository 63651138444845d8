"""What a work item's run says, as it says it, and which files went in and came out."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header
from fastapi.responses import StreamingResponse

from api.auth import Caller
from api.deps import Deps, Given
from api.schemas.fields import sse
from api.schemas.files import FileAnswer, FileList
from models.domain.principal import Principal
from models.domain.work_item import WorkItemStatus
from models.services import run_logs, work_items
from models.tables.work import WorkItemRow

router = APIRouter(prefix="/v1/work-items/{work_item_id}", tags=["work items"])

FIRST_SECONDS = 0.2
AGAIN_SECONDS = 0.5
HEARTBEAT_SECONDS = 15.0
"""A comment this often keeps proxies from closing a stream in which nothing happens."""


@router.get(
    "/logs",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Server-sent events."}
    },
)
async def logs(
    work_item_id: UUID,
    principal: Caller,
    given: Given,
    follow: bool = True,
    last_event_id: Annotated[str | None, Header(max_length=64, description="Go on after this event.")] = None,
) -> StreamingResponse:
    """The run's output as server-sent events; ends when the item is final.

    Events `log` carry `attempt`, `offset`, `stream`, `at`, and `text` (or `data_b64` where it is not UTF-8); their id
    resumes the stream. The last event is `end`, with the item's status.
    """
    async with given.db.session_for(principal) as session:
        item = await work_items.read(session, principal, work_item_id)
    pieces = _pieces(given, principal, item, last_event_id or "", follow=follow)
    # The first step is taken before the answer begins, so that what is wrong with the request can still be said.
    first = asyncio.ensure_future(anext(pieces, None))
    await asyncio.wait({first}, timeout=FIRST_SECONDS)
    if first.done():
        first.result()
    stream = _events(given, principal, work_item_id, pieces, first)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _pieces(
    given: Deps, principal: Principal, item: WorkItemRow, after: str, *, follow: bool
) -> AsyncGenerator[run_logs.LogPiece]:
    """The output until the item is final: a run that ended may be tried again, or is just being settled."""
    while True:
        reading = run_logs.read(
            given.db,
            given.blobs,
            given.cache,
            principal,
            item.id,
            after=after,
            follow=follow,
            tenant_id=item.tenant_id,
        )
        async for piece in reading:
            after = piece.event_id
            yield piece
        async with given.db.session_for(principal) as session:
            item = await work_items.read(session, principal, item.id)
        if not follow or WorkItemStatus(item.status).is_final:
            return
        await asyncio.sleep(AGAIN_SECONDS)


async def _events(
    given: Deps,
    principal: Principal,
    work_item_id: UUID,
    pieces: AsyncGenerator[run_logs.LogPiece],
    step: asyncio.Future[run_logs.LogPiece | None],
) -> AsyncGenerator[bytes]:
    yield b"retry: 1000\n\n"
    try:
        while True:
            await asyncio.wait({step}, timeout=HEARTBEAT_SECONDS)
            if not step.done():
                yield b": still here\n\n"
                continue
            piece = step.result()
            if piece is None:
                break
            yield sse("log", _log_data(piece), piece.event_id)
            step = asyncio.ensure_future(anext(pieces, None))
    finally:
        step.cancel()
        await asyncio.gather(step, return_exceptions=True)
        await pieces.aclose()
    async with given.db.session_for(principal) as session:
        item = await work_items.read(session, principal, work_item_id)
    yield sse("end", {"status": item.status, "outcome": item.outcome})


def _log_data(piece: run_logs.LogPiece) -> dict[str, Any]:
    head = {"attempt": piece.attempt, "offset": piece.offset, "stream": piece.stream, "at": piece.at.isoformat()}
    try:
        return head | {"text": piece.data.decode()}
    except UnicodeDecodeError:
        return head | {"data_b64": base64.b64encode(piece.data).decode()}


@router.get("/files")
async def list_files(work_item_id: UUID, principal: Caller, given: Given) -> FileList:
    """The files that went in, and those that came out so far."""
    async with given.db.session_for(principal) as session:
        rows = await work_items.files(session, principal, work_item_id)
    return FileList(items=[FileAnswer.model_validate(row, from_attributes=True) for row in rows])
