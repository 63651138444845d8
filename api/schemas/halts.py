"""Halts, as the API speaks of them."""

from __future__ import annotations

from uuid import UUID

from pydantic import Field

from api.schemas.fields import Answer, Body, Reason
from models.domain.views import HaltState
from models.services.halt import HaltMode, HaltScope


class LiftBody(Body):
    """Which halt."""

    scope: HaltScope
    tenant_id: UUID | None = Field(None, description="Whose; left out: your own company's.")
    assistant_id: UUID | None = Field(None, description="For the scope `assistant`.")
    reason: Reason = ""


class HaltBody(LiftBody):
    """A halt to put in force."""

    mode: HaltMode = Field(
        HaltMode.KILL, description="`kill` ends what runs; `hold` lets it run, and nothing new starts."
    )


class HaltList(Answer):
    """Halts that concern the caller's company, the newest change first."""

    items: list[HaltState]
