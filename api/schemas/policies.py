"""Policy versions, as the API speaks of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import Field, StringConstraints

from api.schemas.fields import Answer, Body
from models.domain.policy import Policy
from models.tables.tenancy import PolicyVersionRow

Source = Annotated[str, StringConstraints(min_length=1, max_length=262_144)]


class PolicyBody(Body):
    """A policy's text to check."""

    source: Source = Field(description="YAML, conditions in CEL.")


class NewPolicyBody(PolicyBody):
    """A policy's text to put in force."""

    base_version: int | None = Field(
        None, ge=0, le=2**31 - 1, description="The version that you changed; refused when another is in force by now."
    )


class PolicyCheck(Answer):
    """A policy that is valid, as it was understood. One that is not answers a problem with line numbers."""

    name: str
    version: str
    policy: dict[str, Any]

    @classmethod
    def of(cls, policy: Policy) -> Self:
        """The answer for a policy."""
        return cls(name=policy.policy.name, version=policy.policy.version, policy=policy.model_dump(mode="json"))


class PolicyLine(Answer):
    """A policy version in a list."""

    id: UUID
    version: int
    digest: str
    created_by: UUID | None
    created_at: datetime

    @classmethod
    def of(cls, row: PolicyVersionRow) -> Self:
        """The answer for a row."""
        return cls.model_validate(row, from_attributes=True)


class PolicyAnswer(PolicyLine):
    """A policy version, whole."""

    source: str


class PolicyPage(Answer):
    """Policy versions, newest first."""

    items: list[PolicyLine]
    next_cursor: str | None
