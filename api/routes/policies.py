"""Policies: checked, written as versions, read."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path

from api.auth import Caller
from api.deps import Given
from api.schemas.paging import Cursor, Limit
from api.schemas.policies import NewPolicyBody, PolicyAnswer, PolicyBody, PolicyCheck, PolicyLine, PolicyPage
from models.services import policies

router = APIRouter(prefix="/v1/policies", tags=["policies"])


@router.post("/validate")
async def validate(body: PolicyBody, principal: Caller) -> PolicyCheck:
    """Check a policy's text; nothing is written. What is wrong is answered with its place and line."""
    # Every condition is tried on every sample, which takes a moment: not on the loop that serves the others.
    return PolicyCheck.of(await asyncio.to_thread(policies.validate, body.source))


@router.post("", status_code=201)
async def write(body: NewPolicyBody, principal: Caller, given: Given) -> PolicyAnswer:
    """Put the company's next policy version in force for new work."""
    await asyncio.to_thread(policies.validate, body.source)
    async with given.db.session_for(principal) as session:
        row = await policies.write_version(session, principal, body.source, base_version=body.base_version)
        await session.refresh(row)
    return PolicyAnswer.of(row)


@router.get("")
async def list_versions(principal: Caller, given: Given, cursor: Cursor = None, limit: Limit = 50) -> PolicyPage:
    """The company's policy versions, newest first."""
    async with given.db.session_for(principal) as session:
        rows, next_cursor = await policies.list_page(session, principal, cursor, limit)
    return PolicyPage(items=[PolicyLine.of(row) for row in rows], next_cursor=next_cursor)


@router.get("/current")
async def current(principal: Caller, given: Given) -> PolicyAnswer:
    """The policy version in force for new work."""
    async with given.db.session_for(principal) as session:
        return PolicyAnswer.of(await policies.read(session, principal))


@router.get("/{version}")
async def read(
    version: Annotated[int, Path(ge=1, le=2**31 - 1, description="Its number.")], principal: Caller, given: Given
) -> PolicyAnswer:
    """One policy version by its number."""
    async with given.db.session_for(principal) as session:
        return PolicyAnswer.of(await policies.read(session, principal, version))
