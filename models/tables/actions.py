"""What agents ask to do, how it is performed, and what they say meanwhile."""

# SQLModel declares `__tablename__` as a declared_attr; its documented use is a plain string.
# pyright: reportAssignmentType=false

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlmodel import Field, SQLModel

from models.tables.columns import big, document, moment, stamped, tenant_key


class AssistantKeyRow(SQLModel, table=True):
    __tablename__ = "assistant_keys"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    assistant_id: UUID
    key_hash: str
    prefix: str
    created_by: UUID
    created_at: datetime = stamped()
    expires_at: datetime | None = moment()
    revoked_at: datetime | None = moment()


class SecretRow(SQLModel, table=True):
    __tablename__ = "secrets"
    tenant_id: UUID = tenant_key()
    name: str = Field(primary_key=True)
    ciphertext: str
    created_by: str
    created_at: datetime = stamped()
    updated_at: datetime = stamped()


class ConnectorRow(SQLModel, table=True):
    __tablename__ = "connectors"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    name: str
    kind: str
    config: dict[str, Any] = document()
    enabled: bool = True
    version: int = 1
    created_at: datetime = stamped()
    updated_at: datetime = stamped()


class ActionSetRow(SQLModel, table=True):
    __tablename__ = "action_sets"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    work_item_id: UUID
    digest: str
    level: str
    status: str
    reason: str = ""
    created_at: datetime = stamped()
    ended_at: datetime | None = moment()


class ActionRow(SQLModel, table=True):
    """`work_item_id` and `run_id` are null for an agent that runs elsewhere."""

    __tablename__ = "actions"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    assistant_id: UUID
    work_item_id: UUID | None = None
    run_id: UUID | None = None
    attempt: int | None = None
    idempotency_key: str
    request_digest: str
    kind: str
    target: str
    class_digest: str
    parameters: dict[str, Any] = document()
    effect: dict[str, Any] | None = document(nullable=True)
    mode: str
    reason: str = ""
    facts: dict[str, Any] = document()
    policy_version_id: UUID
    level: str
    score: int
    factors: list[dict[str, Any]] = document()
    digest: str
    asked_digest: str
    status: str
    words: str = ""
    approval_id: UUID | None = None
    set_id: UUID | None = None
    position: int | None = None
    warrant_id: UUID | None = None
    result: dict[str, Any] | None = document(nullable=True)
    created_at: datetime = stamped()
    updated_at: datetime = stamped()
    decided_at: datetime | None = moment()
    ended_at: datetime | None = moment()


class EffectAttemptRow(SQLModel, table=True):
    __tablename__ = "effect_attempts"
    tenant_id: UUID = tenant_key()
    action_id: UUID = Field(primary_key=True)
    attempt: int = Field(primary_key=True)
    state: str
    request: dict[str, Any] = document()
    response: dict[str, Any] | None = document(nullable=True)
    started_at: datetime = stamped()
    ended_at: datetime | None = moment()


class QuestionRow(SQLModel, table=True):
    __tablename__ = "questions"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    work_item_id: UUID
    run_id: UUID
    idempotency_key: str
    words: str
    options: list[str] = document()
    answer: str | None = None
    answered_by: str | None = None
    created_at: datetime = stamped()
    answered_at: datetime | None = moment()


class RunStateRow(SQLModel, table=True):
    __tablename__ = "run_states"
    tenant_id: UUID = tenant_key()
    run_id: UUID = Field(primary_key=True)
    sha256: str
    size: int = big()
    attempt: int
    saves: int = 1
    updated_at: datetime = stamped()
