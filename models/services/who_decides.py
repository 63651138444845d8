"""Saying in words who may decide."""

from __future__ import annotations

from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.approval import ApprovalRequirement, ApprovalTier
from models.domain.principal import Role
from models.repositories import principals as rows


async def who_decides(session: AsyncSession, tenant_id: UUID, requirement: ApprovalRequirement) -> str:
    """E.g. `1 approver of this company (Ada Approver, Ben Baker)`; names as far as the session sees them."""
    holding = requirement.tier is ApprovalTier.HOLDING
    role, of = (Role.HOLDING_APPROVER, "the holding") if holding else (Role.APPROVER, "this company")
    count = f"{requirement.quorum} approver{'s' if requirement.quorum > 1 else ''} of {of}"
    # A subsidiary does not see who the holding's people are.
    names = await rows.names_with_role(session, [tenant_id], role.value)
    return f"{count} ({', '.join(names)})" if names else count
