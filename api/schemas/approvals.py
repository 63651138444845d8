"""Approvals and decisions, as the API speaks of them."""

from __future__ import annotations

from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import Field

from api.schemas.fields import Answer, Body, Reason, Sha256
from models.domain.approval import ApprovalStatus, Verdict
from models.domain.views import ApprovalContext
from models.tables.work import ApprovalRow


class ApprovalPage(Answer):
    """Approvals that the caller may decide, newest first."""

    items: list[ApprovalContext]
    next_cursor: str | None


class DecisionBody(Body):
    """One human's answer."""

    verdict: Verdict
    reason: Reason = Field("", description="Why; needed where the policy says so.")
    digest: Sha256 | None = Field(
        None, description="`subject_digest` as it was shown; when given, it must be that of what would run."
    )
    tenant_id: UUID | None = Field(None, description="The work item's company; left out, it is found.")


class DecisionAnswer(Answer):
    """How the approval stands after the vote."""

    id: UUID
    tenant_id: UUID
    work_item_id: UUID
    status: ApprovalStatus
    reason: str
    subject_digest: str
    ended_at: datetime | None

    @classmethod
    def of(cls, row: ApprovalRow) -> Self:
        """The answer for a row."""
        return cls.model_validate(row, from_attributes=True)
