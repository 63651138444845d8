"""Secrets and connectors, as the API speaks of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, SecretStr

from api.schemas.fields import Answer, Body, Parameters
from models.domain.action import ConnectorKind
from models.domain.connector import NewConnector

__all__ = [
    "ConnectorAnswer",
    "ConnectorChange",
    "ConnectorList",
    "NewConnector",
    "SecretAnswer",
    "SecretBody",
    "SecretList",
]


class SecretBody(Body):
    """A value to keep."""

    value: Annotated[SecretStr, Field(description="8 to 8192 characters of printable ASCII. It is never shown again.")]


class SecretAnswer(Answer):
    """A secret without its value."""

    name: str
    created_by: str
    created_at: datetime
    updated_at: datetime
    used_by: list[str] = Field(description="Connectors that show it to the other side.")


class SecretList(Answer):
    """The secrets of a company, by name."""

    items: list[SecretAnswer]


class ConnectorChange(Body):
    """What a connector is from now on, whole."""

    version: Annotated[int, Field(ge=1, le=2**31 - 1, description="The version that you changed.")]
    config: Parameters
    enabled: bool = True


class ConnectorAnswer(Answer):
    """A connector."""

    id: UUID
    name: str
    kind: ConnectorKind
    config: dict[str, Any] = Field(description="By its kind; a credential is named, never shown.")
    enabled: bool
    version: int
    created_at: datetime
    updated_at: datetime


class ConnectorList(Answer):
    """The connectors of a company, by name."""

    items: list[ConnectorAnswer]
