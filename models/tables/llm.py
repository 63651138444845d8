"""Rate cards, what of a reservation was opened in Redis, the ledger of model calls. Amounts are integer nano-USD."""

# SQLModel declares `__tablename__` as a declared_attr; its documented use is a plain string.
# pyright: reportAssignmentType=false

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlmodel import Field, SQLModel

from models.tables.columns import document, moment, nano, required_moment, stamped, tenant_key


class RateCardRow(SQLModel, table=True):
    """Global: read by all, written through `add_rate_card` alone."""

    __tablename__ = "rate_cards"
    model: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    effective_from: datetime = required_moment()
    card: dict[str, Any] = document()
    digest: str
    source: str
    created_at: datetime = stamped()


class LlmOpeningRow(SQLModel, table=True):
    __tablename__ = "llm_openings"
    tenant_id: UUID = tenant_key()
    reservation_id: UUID = Field(primary_key=True)
    work_item_id: UUID
    run_id: UUID
    assistant_id: UUID
    grant_nano: int = nano()
    redis_run_id: str
    opened_at: datetime = stamped()
    closed_at: datetime | None = moment()


class LlmChargeRow(SQLModel, table=True):
    __tablename__ = "llm_charges"
    tenant_id: UUID = tenant_key()
    call_id: UUID = Field(primary_key=True)
    attempt: int = Field(primary_key=True, default=1)
    reservation_id: UUID
    work_item_id: UUID
    run_id: UUID
    assistant_id: UUID
    model: str
    card_version: int | None = None
    prices: dict[str, Any] = document()
    tokens: dict[str, Any] = document()
    held_nano: int = nano()
    amount_nano: int = nano()
    kind: str
    upstream_id: str | None = None
    upstream_status: int | None = None
    streamed: bool = False
    detail: str = ""
    started_at: datetime = required_moment()
    ended_at: datetime = required_moment()
    created_at: datetime = stamped()
