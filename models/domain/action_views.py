"""An action as agents, approvers and readers see it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from models.domain.action import ActionStatus
from models.domain.risk import RiskFactor, RiskLevel
from models.domain.views import View


class ActionAnswer(View):
    """What an agent is told.

    Attributes:
        id: None where nothing was written: a cap denied it.
        reason: Why, in words: of who denied it, of the cap, or of the effect that failed.
        parameters: As they are allowed; other than they were asked for where `status` is `edited`.
        effect: Likewise.
        effect_result: What the other side answered, once the effect was performed.
        wait_url: Where to ask again, below `AWGP_URL`.
        settled: Whether nothing more will come of it.
    """

    id: UUID | None
    status: ActionStatus
    level: RiskLevel | None = None
    score: int | None = None
    factors: tuple[RiskFactor, ...] = ()
    reason: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    effect: dict[str, Any] | None = None
    effect_result: dict[str, Any] | None = None
    approval_id: UUID | None = None
    wait_url: str | None = None
    settled: bool = True


class ActionView(View):
    """An action, whole, for people.

    Attributes:
        why: What the agent gives as its reason.
        words: Why it was denied, what became of it.
        asked_digest: Digest of what was asked; `digest` is that of what is allowed, another one where it was edited.
        asked_again: How often it was asked for again after it had been denied.
    """

    id: UUID
    tenant_id: UUID
    assistant_id: UUID
    work_item_id: UUID | None
    run_id: UUID | None
    attempt: int | None
    kind: str
    target: str
    mode: str
    parameters: dict[str, Any]
    effect: dict[str, Any] | None
    why: str
    status: ActionStatus
    words: str
    level: RiskLevel
    score: int
    factors: tuple[RiskFactor, ...]
    facts: dict[str, Any]
    digest: str
    asked_digest: str
    approval_id: UUID | None
    set_id: UUID | None
    position: int | None
    result: dict[str, Any] | None
    asked_again: int
    created_at: datetime
    decided_at: datetime | None
    ended_at: datetime | None
