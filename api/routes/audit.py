"""The audit trail: listed, verified, exported."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime

from api.auth import Caller
from api.deps import Given
from api.schemas.audit import AuditPage
from api.schemas.paging import Cursor, Limit
from models.domain.views import ChainReport
from models.services import audit_trail, tenants

router = APIRouter(prefix="/v1/audit", tags=["audit"])

OfTenant = Annotated[UUID | None, Query(description="Whose trail; left out: your own company's.")]


@router.get("")
async def list_events(
    principal: Caller,
    given: Given,
    tenant_id: OfTenant = None,
    kind: Annotated[
        str | None, Query(max_length=64, description="A kind; with a trailing dot, all that start so.")
    ] = None,
    actor: Annotated[str | None, Query(max_length=255)] = None,
    work_item_id: UUID | None = None,
    subject: Annotated[str | None, Query(max_length=255)] = None,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> AuditPage:
    """Events of one trail, newest first."""
    wanted = audit_trail.Filter(
        kind=kind, actor_id=actor, work_item_id=work_item_id, subject=subject, since=since, until=until
    )
    async with given.db.session_for(principal) as session:
        items, next_cursor = await audit_trail.list_page(session, principal, wanted, cursor, limit, tenant_id)
    return AuditPage(items=items, next_cursor=next_cursor)


@router.get("/verify")
async def verify(principal: Caller, given: Given, tenant_id: OfTenant = None) -> ChainReport:
    """Recompute the trail's hash chain from its first event, and hold it against the recorded head."""
    async with given.db.session_for(principal) as session:
        return await audit_trail.verify(session, principal, tenant_id)


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}, "description": "JSON lines."}
    },
)
async def export(principal: Caller, given: Given, tenant_id: OfTenant = None) -> StreamingResponse:
    """The whole trail as JSON lines in the chain's order: enough to verify it without this installation."""
    if tenant_id is not None:
        async with given.db.session_for(principal) as session:
            await tenants.read(session, principal, tenant_id)
    lines = audit_trail.export(given.db, principal, tenant_id)
    headers = {"Content-Disposition": 'attachment; filename="audit.jsonl"', "Cache-Control": "no-store"}
    return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)
