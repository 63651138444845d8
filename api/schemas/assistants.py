"""Assistants, as the API speaks of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import Field

from api.schemas.fields import Answer
from models.services.assistants import AssistantBody, NewAssistant
from models.tables.tenancy import AssistantRow

__all__ = ["AssistantAnswer", "AssistantBody", "AssistantChange", "AssistantPage", "NewAssistant"]


class AssistantChange(AssistantBody):
    """What an assistant is from now on, whole; work that exists keeps what it was made with."""

    version: Annotated[int, Field(ge=1, le=2**31 - 1, description="The version that you changed.")]

    def to_domain(self) -> AssistantBody:
        """What the service takes."""
        return AssistantBody.model_validate(self.model_dump(exclude={"version"}))


class LlmAnswer(Answer):
    """What each of its work items may spend on models."""

    budget_nano_usd: int
    models: list[str] = Field(description="Patterns of which the model must fit one; empty: what the policy allows.")
    rpm: int | None = Field(None, description="Calls a minute; null: the policy's.")
    tpm: int | None = Field(None, description="Tokens a minute; null: the policy's.")


class AssistantAnswer(Answer):
    """An assistant."""

    id: UUID
    tenant_id: UUID
    slug: str
    name: str
    description: str
    owner_id: UUID | None
    image: str
    command: list[str] | None
    env: dict[str, str]
    restartable: bool
    limits: dict[str, int]
    tools: list[str]
    llm: LlmAnswer | None
    connectors: list[str]
    enabled: bool
    version: int
    succeeded_count: int
    failed_count: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: AssistantRow) -> Self:
        """The answer for a row."""
        return cls.model_validate({**row.model_dump(), "llm": row.llm or None})


class AssistantPage(Answer):
    """Assistants, newest first."""

    items: list[AssistantAnswer]
    next_cursor: str | None
