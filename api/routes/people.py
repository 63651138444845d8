"""Who is who: the caller, companies, users."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from api.auth import Caller
from api.deps import Given
from api.schemas.paging import Cursor, Limit
from api.schemas.people import Me, TenantAnswer, TenantList, UserAnswer, UserPage
from models.services import principals, tenants

router = APIRouter(prefix="/v1", tags=["people"])


@router.get("/me")
async def me(principal: Caller) -> Me:
    """Who the caller is, as the token says: company, roles, how they signed in."""
    return Me.of(principal)


@router.get("/tenants")
async def list_tenants(principal: Caller, given: Given) -> TenantList:
    """The caller's company, and those that it holds."""
    async with given.db.session_for(principal) as session:
        rows = await tenants.list_visible(session, principal)
    return TenantList(items=[TenantAnswer.of(row) for row in rows])


@router.get("/tenants/{tenant_id}")
async def read_tenant(tenant_id: UUID, principal: Caller, given: Given) -> TenantAnswer:
    """One company."""
    async with given.db.session_for(principal) as session:
        return TenantAnswer.of(await tenants.read(session, principal, tenant_id))


@router.get("/users")
async def list_users(principal: Caller, given: Given, cursor: Cursor = None, limit: Limit = 50) -> UserPage:
    """Users of the caller's company (a holding's: of its subsidiaries too), newest first."""
    async with given.db.session_for(principal) as session:
        rows, next_cursor = await principals.list_page(session, principal, cursor, limit)
    return UserPage(items=[UserAnswer.of(row) for row in rows], next_cursor=next_cursor)


@router.get("/users/{user_id}")
async def read_user(user_id: UUID, principal: Caller, given: Given) -> UserAnswer:
    """One user."""
    async with given.db.session_for(principal) as session:
        return UserAnswer.of(await principals.read(session, principal, user_id))
