"""Bringing files: content goes to the blob store by its digest, and a work item then names it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Request

from api.auth import Caller
from api.body import drain
from api.deps import Given
from api.problems import TooLargeError
from api.schemas.files import UploadAnswer
from models.domain.errors import InvalidInput
from models.services import uploads

router = APIRouter(prefix="/v1/files", tags=["files"])

_SPOOL_BYTES = 1 << 20
_PIECE_BYTES = 1 << 18


@router.post(
    "",
    status_code=201,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload(
    request: Request,
    principal: Caller,
    given: Given,
    content_length: Annotated[int | None, Header(ge=0, include_in_schema=False)] = None,
) -> UploadAnswer:
    """Store a file's bytes (any content type); answers the digest and size by which a work item names it."""
    most = given.settings.max_file_bytes
    if content_length is not None and content_length > most:
        await drain(request.receive)
        raise _too_large(most)
    # Spooled first: the store wants the digest before the bytes, and a broken upload must leave nothing there.
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
        seen = hashlib.sha256()
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > most:
                await drain(request.receive)
                raise _too_large(most)
            seen.update(chunk)
            spool.write(chunk)
        if size == 0:
            raise InvalidInput("body: is empty", errors=[{"where": "body", "what": "is empty"}])
        spool.seek(0)

        async def pieces() -> AsyncIterator[bytes]:
            while piece := spool.read(_PIECE_BYTES):
                yield piece

        await given.blobs.put_stream(seen.hexdigest(), pieces())
    uploaded = uploads.Uploaded(sha256=seen.hexdigest(), size=size)
    async with given.db.session_for(principal) as session:
        await uploads.record_upload(session, principal, uploaded)
    return UploadAnswer(sha256=uploaded.sha256, size=uploaded.size)


def _too_large(most: int) -> TooLargeError:
    return TooLargeError(f"A file has at most {most} bytes.", max_bytes=most)
