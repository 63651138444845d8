"""Host runtimes, as the API speaks of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import Field

from api.schemas.fields import Answer
from models.tables.execution import RuntimeRow


class RuntimeAnswer(Answer):
    """A machine that runs a company's sandboxes."""

    id: UUID
    tenant_id: UUID
    name: str
    enabled: bool
    facts: dict[str, Any] = Field(
        description="What it proved at its start: gVisor's version and platform, limits, engine."
    )
    enrolled_at: datetime
    last_heard_at: datetime | None

    @classmethod
    def of(cls, row: RuntimeRow) -> Self:
        """The answer for a row."""
        return cls.model_validate(row.model_dump() | {"facts": row.facts or {}})


class RuntimeList(Answer):
    """Host runtimes of the caller's company (a holding's: of its subsidiaries too)."""

    items: list[RuntimeAnswer]


class EnrolmentToken(Answer):
    """Leave to enrol one runtime, once."""

    token: str = Field(description="Shown this once; only its hash is kept.")
    expires_in: int = Field(description="Seconds.")
