"""Host runtimes, enrolment tokens, runs, warrants, log chunks."""

# SQLModel declares `__tablename__` as a declared_attr; its documented use is a plain string.
# pyright: reportAssignmentType=false

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel

from models.tables.columns import big, document, moment, required_moment, stamped, tenant_key


class RuntimeRow(SQLModel, table=True):
    __tablename__ = "runtimes"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    name: str
    public_key: str
    facts: dict[str, Any] = document()
    enabled: bool = True
    enrolled_at: datetime = stamped()
    last_heard_at: datetime | None = moment()


class EnrolmentTokenRow(SQLModel, table=True):
    __tablename__ = "enrolment_tokens"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    token_hash: str
    created_by: str
    created_at: datetime = stamped()
    expires_at: datetime = required_moment()
    used_at: datetime | None = moment()
    runtime_id: UUID | None = None


class RunRow(SQLModel, table=True):
    __tablename__ = "runs"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    work_item_id: UUID
    status: str = "queued"
    attempt: int = 0
    runtime_id: UUID | None = None
    broker_id: str | None = None
    warrant_id: UUID | None = None
    lease_until: datetime | None = moment()
    claimed_at: datetime | None = moment()
    placed_at: datetime | None = moment()
    started_at: datetime | None = moment()
    ended_at: datetime | None = moment()
    kill_reason: str | None = None
    log_offset: int = big()
    lost_seconds: int = 0
    waiting: str | None = None
    continuation: dict[str, Any] | None = document(nullable=True)
    outcome: str | None = None
    result: dict[str, Any] | None = document(nullable=True)
    created_at: datetime = stamped()


class WarrantRow(SQLModel, table=True):
    __tablename__ = "warrants"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    run_id: UUID | None = None
    action_id: UUID | None = None
    work_item_id: UUID | None = None
    attempt: int
    token: str
    claims: dict[str, Any] = document()
    claim_before: datetime = required_moment()
    claimed_at: datetime | None = moment()
    revoked_at: datetime | None = moment()
    created_at: datetime = stamped()


class LogChunkRow(SQLModel, table=True):
    __tablename__ = "log_chunks"
    tenant_id: UUID = tenant_key()
    run_id: UUID = Field(primary_key=True)
    attempt: int = Field(primary_key=True)
    start_offset: int = Field(primary_key=True, sa_type=BigInteger)
    end_offset: int = big()
    sha256: str
    size: int = big()
    created_at: datetime = stamped()
