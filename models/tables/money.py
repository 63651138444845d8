"""Budgets and their windows, reservations, charges. All amounts are integer nano-USD."""

# SQLModel declares `__tablename__` as a declared_attr; its documented use is a plain string.
# pyright: reportAssignmentType=false

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlmodel import Field, SQLModel

from models.tables.columns import document, moment, nano, stamped, tenant_key


class BudgetRow(SQLModel, table=True):
    __tablename__ = "budgets"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    scope: str
    assistant_id: UUID | None = None
    window_kind: str
    limit_nano: int = nano()
    updated_by: str = ""
    created_at: datetime = stamped()
    updated_at: datetime = stamped()


class BudgetWindowRow(SQLModel, table=True):
    __tablename__ = "budget_windows"
    tenant_id: UUID = tenant_key()
    budget_id: UUID = Field(primary_key=True)
    window_key: str = Field(primary_key=True)
    spent_nano: int = nano()
    reserved_nano: int = nano()
    waiting_nano: int = nano()


class ReservationRow(SQLModel, table=True):
    __tablename__ = "reservations"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    work_item_id: UUID
    amount_nano: int = nano()
    phase: str
    charged_nano: int = nano()
    created_at: datetime = stamped()
    ended_at: datetime | None = moment()


class ReservationLineRow(SQLModel, table=True):
    __tablename__ = "reservation_lines"
    tenant_id: UUID = tenant_key()
    reservation_id: UUID = Field(primary_key=True)
    budget_id: UUID = Field(primary_key=True)
    window_key: str


class ReservationEverythingLineRow(SQLModel, table=True):
    __tablename__ = "reservation_everything_lines"
    tenant_id: UUID = tenant_key()
    reservation_id: UUID = Field(primary_key=True)
    window_kind: str = Field(primary_key=True)
    window_key: str


class ChargeRow(SQLModel, table=True):
    __tablename__ = "charges"
    tenant_id: UUID = tenant_key()
    id: UUID = Field(primary_key=True)
    reservation_id: UUID
    work_item_id: UUID
    kind: str
    amount_nano: int = nano()
    detail: dict[str, Any] = document()
    created_at: datetime = stamped()


class EverythingBudgetRow(SQLModel, table=True):
    """Global: written through `set_everything_budget` alone."""

    __tablename__ = "everything_budgets"
    window_kind: str = Field(primary_key=True)
    limit_nano: int = nano()
    updated_by: str = ""
    updated_at: datetime = stamped()


class EverythingWindowRow(SQLModel, table=True):
    """Global: written through `hold_everything`, `free_everything` and `claim_everything` alone."""

    __tablename__ = "everything_windows"
    window_kind: str = Field(primary_key=True)
    window_key: str = Field(primary_key=True)
    spent_nano: int = nano()
    reserved_nano: int = nano()
    waiting_nano: int = nano()
