"""An approval is a question to humans; a decision is one human's answer."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from models.domain.risk import RiskLevel


class ApprovalStatus(StrEnum):
    """Everything but `pending` is final."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class Verdict(StrEnum):
    """One human's answer."""

    APPROVE = "approve"
    REJECT = "reject"


class ApprovalTier(StrEnum):
    """Who may decide: approvers of the item's tenant, or the holding alone."""

    TENANT = "tenant"
    HOLDING = "holding"


class TenantKind(StrEnum):
    """What kind of company the item belongs to."""

    HOLDING = "holding"
    SUBSIDIARY = "subsidiary"


class ApprovalRequirement(BaseModel):
    """What it takes to approve one item; pinned in the approval's row when it is opened."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: RiskLevel
    tier: ApprovalTier
    quorum: Annotated[int, Field(ge=1, le=16)]
    expires_after_seconds: Annotated[int, Field(ge=60, le=90 * 86_400)]
    remind_after_seconds: tuple[Annotated[int, Field(ge=60)], ...] = ()
    requires_acr: tuple[str, ...] = ()
    """Authentication classes (OIDC `acr`), any one of which is good enough; empty asks for none."""
    reason_required: bool = False


class Human(BaseModel):
    """Who somebody is, in the two ways in which one human could come twice.

    `user_id` is unique in its tenant alone, so the key is the pair; `subject` (what the issuer calls
    them) and the e-mail address tell that one person has an account in two tenants.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant_id: UUID
    user_id: UUID
    subject: str
    email: str | None = None


class DecisionView(Human):
    """A recorded decision, as the tally sees it."""

    verdict: Verdict
    as_holding: bool = False
    """Whether it was cast with the holding's right (checked when it was written)."""


class ApprovalQuestion(BaseModel):
    """An open approval, as the rules see it; all of it from the database, nothing from a token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requirement: ApprovalRequirement
    item_tenant_id: UUID
    holding_tenant_id: UUID
    requesters: tuple[Human, ...]
    """Who asked, and the humans on whose behalf (the owner behind an assistant): none of them decides."""
    status: ApprovalStatus
    expires_at: datetime


class RefusalCode(StrEnum):
    """Why somebody may not decide. The first one that applies, in this order, is the answer."""

    NOT_A_HUMAN = "not_a_human"
    FOREIGN_TENANT = "foreign_tenant"
    HOLDING_ONLY = "holding_only"
    ROLE_MISSING = "role_missing"
    OWN_REQUEST = "own_request"
    ALREADY_CLOSED = "already_closed"
    EXPIRED = "expired"
    ALREADY_VOTED = "already_voted"
    ACR_TOO_LOW = "acr_too_low"
    REASON_MISSING = "reason_missing"


class DecisionAllowed(BaseModel):
    """Yes; `as_holding` is to be recorded with the decision."""

    model_config = ConfigDict(frozen=True)

    as_holding: bool


class DecisionRefused(BaseModel):
    """No, and why, in words for the one who tried."""

    model_config = ConfigDict(frozen=True)

    code: RefusalCode
    words: str


class Tally(BaseModel):
    """How the votes stand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: ApprovalStatus
    """`pending`, `approved` or `rejected`."""
    approvals: int
    """Votes that count towards the quorum: one a human, and of the right tier."""
    quorum: int
    words: str
