"""Approvals and decisions, as the API speaks of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import Field

from api.schemas.fields import Answer, Body, Reason, Sha256
from models.domain.action import ActionEdits
from models.domain.approval import ApprovalStatus, Verdict
from models.domain.views import ApprovalContext
from models.tables.work import ApprovalRow


class ApprovalPage(Answer):
    """Approvals that the caller may decide, newest first."""

    items: list[ApprovalContext]
    next_cursor: str | None


class EditsBody(Body):
    """What is changed of an action; a part left out stays. Assessed anew: it may not become graver."""

    parameters: dict[str, Any] | None = None
    effect: dict[str, Any] | None = None

    def to_domain(self) -> ActionEdits:
        """What the service takes."""
        return ActionEdits(parameters=self.parameters, effect=self.effect)


class DecisionBody(Body):
    """One human's answer."""

    verdict: Verdict
    reason: Reason = Field("", description="Why; needed where the policy says so.")
    digest: Sha256 | None = Field(
        None, description="`subject_digest` as it was shown; when given, it must be that of what would run."
    )
    tenant_id: UUID | None = Field(None, description="The work item's company; left out, it is found.")
    edits: EditsBody | None = Field(
        None, description="With a yes to an action that one vote decides: what is allowed instead of what was asked."
    )


class DecisionAnswer(Answer):
    """How the approval stands after the vote."""

    id: UUID
    tenant_id: UUID
    work_item_id: UUID | None
    action_id: UUID | None
    action_set_id: UUID | None
    status: ApprovalStatus
    reason: str
    subject_digest: str
    ended_at: datetime | None

    @classmethod
    def of(cls, row: ApprovalRow) -> Self:
        """The answer for a row."""
        return cls.model_validate(row, from_attributes=True)
