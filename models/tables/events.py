"""The live timeline of a work item."""

# SQLModel declares `__tablename__` as a declared_attr; its documented use is a plain string.
# pyright: reportAssignmentType=false

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel

from models.tables.columns import big, document, stamped, tenant_key


class ItemEventHeadRow(SQLModel, table=True):
    __tablename__ = "item_event_heads"
    tenant_id: UUID = tenant_key()
    work_item_id: UUID = Field(primary_key=True)
    seq: int = big()


class ItemEventRow(SQLModel, table=True):
    """`source` names what was told, so that what is told twice is one event."""

    __tablename__ = "item_events"
    tenant_id: UUID = tenant_key()
    work_item_id: UUID = Field(primary_key=True)
    seq: int = Field(primary_key=True, sa_type=BigInteger)
    at: datetime = stamped()
    kind: str
    source: str | None = None
    data: dict[str, Any] = document()
