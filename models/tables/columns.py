"""Column shapes that the tables share."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, Text, func
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field


def tenant_key() -> Any:
    """First half of every tenant table's primary key."""
    return Field(primary_key=True)


def stamped() -> Any:
    """Set by the database's clock."""
    return Field(
        default=None, sa_column=Column(DateTime(timezone=True), server_default=func.now(), nullable=False)
    )


def moment() -> Any:
    """A nullable time with zone."""
    return Field(default=None, sa_column=Column(DateTime(timezone=True), nullable=True))


def required_moment() -> Any:
    """A time with zone that the writer gives."""
    return Field(sa_column=Column(DateTime(timezone=True), nullable=False))


def document(*, nullable: bool = False) -> Any:
    """A JSON document."""
    return Field(default=None, sa_column=Column(JSONB, nullable=nullable))


def words() -> Any:
    """A list of text."""
    return Field(default_factory=list, sa_column=Column(ARRAY(Text), nullable=False))


def nano(default: int = 0) -> Any:
    """Money in integer nano-USD."""
    return Field(default=default, sa_column=Column(BigInteger, nullable=False))


def big(default: int = 0) -> Any:
    """A 64 bit integer."""
    return Field(default=default, sa_column=Column(BigInteger, nullable=False))
