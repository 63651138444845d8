"""Tenants, principals, assistants, policy versions, webhooks, halts."""

# SQLModel declares `__tablename__` as a declared_attr; its documented use is a plain string.
# pyright: reportAssignmentType=false

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from models.tables.columns import big, document, moment, stamped, tenant_key, words


class TenantRow(SQLModel, table=True):
    __tablename__ = "tenants"
    tenant_id: UUID = tenant_key()
    slug: str
    name: str
    kind: str
    parent_tenant_id: UUID | None = None
    created_at: datetime = stamped()


class PrincipalRow(SQLModel, table=True):
    __tablename__ = "principals"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    kind: str
    issuer: str
    subject: str
    username: str
    display_name: str
    email: str | None = None
    roles: list[str] = words()
    created_at: datetime = stamped()
    last_seen_at: datetime | None = moment()


class AssistantRow(SQLModel, table=True):
    __tablename__ = "assistants"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    slug: str
    name: str
    description: str = ""
    owner_id: UUID | None = None
    image: str
    command: list[str] | None = document(nullable=True)
    env: dict[str, str] = document()
    restartable: bool = False
    limits: dict[str, Any] = document()
    tools: list[str] = words()
    llm: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSONB, nullable=False))
    connectors: list[str] = words()
    enabled: bool = True
    version: int = 1
    succeeded_count: int = 0
    failed_count: int = 0
    created_at: datetime = stamped()
    updated_at: datetime = stamped()


class PolicyVersionRow(SQLModel, table=True):
    __tablename__ = "policy_versions"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    version: int
    digest: str
    source: str
    created_by: UUID | None = None
    created_at: datetime = stamped()


class WebhookRow(SQLModel, table=True):
    __tablename__ = "webhooks"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    url: str
    secret: str
    events: list[str] = words()
    enabled: bool = True
    created_at: datetime = stamped()


class HaltRow(SQLModel, table=True):
    """Global: read by all, written through `set_halt` alone."""

    __tablename__ = "halts"
    scope: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    epoch: int = big()
    active: bool = False
    mode: str = "kill"
    reason: str = ""
    changed_by: str = ""
    changed_at: datetime = stamped()
