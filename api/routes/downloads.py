"""A work item's file, downloaded: whole or in part, with its digest, and never as something that a browser runs."""

from __future__ import annotations

import base64
import re
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Header
from fastapi.responses import Response, StreamingResponse

from api.auth import Caller
from api.deps import Deps, Given
from api.problems import problem
from api.schemas.files import Direction
from models.domain.errors import DependencyAway, NotFound
from models.domain.principal import Principal
from models.services import work_items
from models.tables.work import WorkItemFileRow

router = APIRouter(prefix="/v1/work-items/{work_item_id}/files", tags=["work items"])

_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))", re.ASCII)
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": _BYTES, "description": "The bytes."},
    206: {"content": _BYTES, "description": "Those that `Range` asks for."},
    304: {"description": "`If-None-Match` names this content."},
}

Conditional = Annotated[str | None, Header(max_length=1024)]


@router.get("/{direction}/{path:path}", response_class=StreamingResponse, responses=_ANSWERS)
async def read_file(
    work_item_id: UUID,
    direction: Direction,
    path: str,
    principal: Caller,
    given: Given,
    asked_range: Annotated[
        str | None, Header(alias="Range", max_length=256, description="One range of bytes; several are answered whole.")
    ] = None,
    if_range: Conditional = None,
    if_none_match: Conditional = None,
) -> Response:
    """A file's bytes; `Repr-Digest` (RFC 9530) is that of the whole file."""
    found = await _find(given, principal, work_item_id, direction, path)
    headers = _headers(found)
    if if_none_match is not None and (if_none_match.strip() == "*" or headers["ETag"] in if_none_match):
        return Response(status_code=304, headers=headers)
    part = None
    if asked_range is not None and if_range in (None, headers["ETag"]):
        part = _part(asked_range, found.size)
    if part == ():
        return problem(
            "range-not-satisfiable",
            "Range not satisfiable",
            416,
            f"The file has {found.size} bytes.",
            headers={"Content-Range": f"bytes */{found.size}"},
        )
    try:
        content = await given.blobs.open(found.sha256, part or None)
    except FileNotFoundError as error:
        raise DependencyAway("The blob store does not have this file at the moment.", dependency="blobs") from error
    if part:
        headers["Content-Range"] = f"bytes {part[0]}-{part[1] - 1}/{found.size}"
    start, end = part or (0, found.size)
    headers["Content-Length"] = str(end - start)
    status = 206 if part else 200
    return StreamingResponse(content, status, headers=headers, media_type="application/octet-stream")


@router.head("/{direction}/{path:path}", response_class=Response, responses={200: {"description": "It is there."}})
async def look_at_file(
    work_item_id: UUID, direction: Direction, path: str, principal: Caller, given: Given
) -> Response:
    """Size and digest of a file, without its bytes."""
    found = await _find(given, principal, work_item_id, direction, path)
    headers = _headers(found) | {"Content-Length": str(found.size)}
    return Response(headers=headers, media_type="application/octet-stream")


async def _find(given: Deps, principal: Principal, work_item_id: UUID, direction: str, path: str) -> WorkItemFileRow:
    async with given.db.session_for(principal) as session:
        rows = await work_items.files(session, principal, work_item_id, direction)
    found = next((row for row in rows if row.path == path), None)
    if found is None:
        raise NotFound(f"the work item has no file {direction}/{path}")
    return found


def _headers(file: WorkItemFileRow) -> dict[str, str]:
    digest = base64.b64encode(bytes.fromhex(file.sha256)).decode()
    # An agent wrote it, and named it: a browser must neither render nor guess it, nor let a script of ours read it.
    return {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.path.rsplit('/', 1)[-1], safe='')}",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cross-Origin-Resource-Policy": "same-origin",
        "ETag": f'"{file.sha256}"',
        "Repr-Digest": f"sha-256=:{digest}:",
        "X-Content-Type-Options": "nosniff",
    }


def _part(asked: str, size: int) -> tuple[int, int] | tuple[()] | None:
    """Where a range begins and ends; () when it lies beyond the file, None when it is not one range of bytes."""
    found = _RANGE.fullmatch(asked.strip())
    if found is None:
        return None
    if found[3] is not None:
        length = min(int(found[3]), size)
        return (size - length, size) if length else ()
    start, last = int(found[1]), int(found[2]) if found[2] else size - 1
    if found[2] and last < start:
        return None
    return (start, min(last + 1, size)) if start < size else ()
