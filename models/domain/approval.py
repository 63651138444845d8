"""An approval is a question to humans; a decision is one human's answer."""

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

    `user_id` is unique in its tenant alone, so the key is the pair; `subject` is what the issuer calls the
    human, or their verified e-mail address, in whichever tenant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant_id: UUID
    user_id: UUID
    subject: str


class Decider(Human):
    """Somebody who wants to decide, with what is known of them from their token and from the database."""

    is_human: bool
    """False for assistants, services and automations: they never decide."""
    tenant_kind: TenantKind
    """The kind of the decider's own tenant, from the database and not from the token."""
    roles: frozenset[str]
    acr: str | None = None


class DecisionView(Human):
    """A recorded decision, as the tally sees it."""

    verdict: Verdict
    as_holding: bool = False
    """Whether it was cast with the holding's right (checked when it was written)."""


class Tally(BaseModel):
    """How the votes stand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: ApprovalStatus
    """`pending`, `approved` or `rejected`."""
    approvals: int
    """Votes that count towards the quorum: one a human, and of the right tier."""
    quorum: int
    words: str
