"""Work items, files, assessments, approvals, decisions.

An approval and an assessment are about a work item, about one action, or about a staged set of actions.
"""

# SQLModel declares `__tablename__` as a declared_attr; its documented use is a plain string.
# pyright: reportAssignmentType=false

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel

from models.tables.columns import big, document, moment, nano, required_moment, stamped, tenant_key


class WorkItemRow(SQLModel, table=True):
    __tablename__ = "work_items"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    idempotency_key: str
    request_digest: str
    assistant_id: UUID
    requester_id: UUID
    policy_version_id: UUID
    title: str
    kind: str
    facts: dict[str, Any] = document()
    parameters: dict[str, Any] = document()
    spec: dict[str, Any] = document()
    spec_digest: str
    worst_case_nano: int = nano()
    status: str = "submitted"
    status_seq: int = big(1)
    null_runner: bool = False
    risk_level: str | None = None
    risk_score: int | None = None
    reservation_id: UUID | None = None
    cost_nano: int | None = Field(default=None, sa_type=BigInteger)
    reason: str = ""
    outcome: str | None = None
    result: dict[str, Any] | None = document(nullable=True)
    cancel_requested_at: datetime | None = moment()
    cancel_reason: str | None = None
    created_at: datetime = stamped()
    updated_at: datetime = stamped()
    ended_at: datetime | None = moment()


class WorkItemFileRow(SQLModel, table=True):
    __tablename__ = "work_item_files"
    tenant_id: UUID = tenant_key()
    work_item_id: UUID = Field(primary_key=True)
    direction: str = Field(primary_key=True)
    path: str = Field(primary_key=True)
    sha256: str
    size: int = big()
    created_at: datetime = stamped()


class RiskAssessmentRow(SQLModel, table=True):
    __tablename__ = "risk_assessments"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    work_item_id: UUID | None = None
    action_id: UUID | None = None
    action_set_id: UUID | None = None
    policy_version_id: UUID
    score: int
    level: str
    factors: list[dict[str, Any]] = document()
    facts: dict[str, Any] = document()
    created_at: datetime = stamped()


class ApprovalRow(SQLModel, table=True):
    __tablename__ = "approvals"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    work_item_id: UUID | None = None
    action_id: UUID | None = None
    action_set_id: UUID | None = None
    assessment_id: UUID
    policy_version_id: UUID
    level: str
    subject_digest: str
    requirement: dict[str, Any] = document()
    tier: str
    status: str = "pending"
    reason: str = ""
    expires_at: datetime = required_moment()
    created_at: datetime = stamped()
    ended_at: datetime | None = moment()


class DecisionRow(SQLModel, table=True):
    __tablename__ = "decisions"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    approval_id: UUID
    decider_tenant_id: UUID
    decider_id: UUID
    decider_subject: str
    decider_name: str
    decider_email: str | None = None
    decider_is_holding: bool
    verdict: str
    reason: str = ""
    acr: str | None = None
    channel: str
    subject_digest: str
    edits: dict[str, Any] | None = document(nullable=True)
    created_at: datetime = stamped()
