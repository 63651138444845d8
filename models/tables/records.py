"""The audit trail, the outbox, the record of operations."""

# SQLModel declares `__tablename__` as a declared_attr; its documented use is a plain string.
# pyright: reportAssignmentType=false

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel

from models.tables.columns import big, document, moment, stamped, tenant_key


class AuditHeadRow(SQLModel, table=True):
    __tablename__ = "audit_heads"
    tenant_id: UUID = tenant_key()
    seq: int = big()
    hash: str = ""


class AuditEventRow(SQLModel, table=True):
    __tablename__ = "audit_events"
    tenant_id: UUID = tenant_key()
    seq: int = Field(primary_key=True, sa_type=BigInteger)
    occurred_at: datetime = Field(primary_key=True)
    kind: str
    actor_tenant_id: UUID | None = None
    actor_id: str
    actor_name: str
    work_item_id: UUID | None = None
    subject: str
    summary: str
    data: dict[str, Any] = document()
    prev_hash: str
    hash: str


class OutboxRow(SQLModel, table=True):
    __tablename__ = "outbox"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    kind: str
    payload: dict[str, Any] = document()
    created_at: datetime = stamped()
    due_at: datetime = stamped()
    attempts: int = 0
    last_error: str | None = None
    done_at: datetime | None = moment()


class OperationRow(SQLModel, table=True):
    __tablename__ = "operations"
    tenant_id: UUID = tenant_key()
    op_id: str = Field(primary_key=True)
    answer: dict[str, Any] | None = document(nullable=True)
    created_at: datetime = stamped()
