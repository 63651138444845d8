"""Work items, as the API speaks of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import Field, StringConstraints, ValidationError

from api.schemas.events import CostAnswer
from api.schemas.fields import Answer, Body, MoneyText, Parameters, Reason, Title, invalid_body, nano, words
from models.domain.approval import ApprovalTier
from models.domain.risk import RiskFactor, RiskLevel
from models.domain.views import AuditView, DryRun, WorkItemSummary
from models.domain.work_item import (
    MAX_TOOLS,
    ActionKind,
    DataClass,
    ExternalEffect,
    Reversibility,
    ToolName,
    WorkItemStatus,
)
from models.services.item_costs import CostSplit
from models.services.new_work_items import MAX_INPUTS, LimitsAsked, NewWorkItem
from models.tables.work import WorkItemRow
from sandbox.spec import InputFile


class WorkItemBody(Body):
    """A piece of work that is asked for. A fact that is left out takes its cautious value."""

    assistant: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(
        description="Slug or id of an assistant of your company.", examples=["reconciler"]
    )
    title: Title
    kind: ActionKind = Field(examples=["reconcile"])
    data_class: DataClass
    reversibility: Reversibility = Reversibility.IRREVERSIBLE
    external_effect: ExternalEffect = ExternalEffect.EXTERNAL
    amount: MoneyText = Field(
        "0.00 USD", description="What the work itself moves or prepares to move; not what running it costs."
    )
    tools: Annotated[frozenset[ToolName], Field(max_length=MAX_TOOLS)] = frozenset()
    parameters: Parameters = Field(default_factory=dict)
    inputs: Annotated[tuple[InputFile, ...], Field(max_length=MAX_INPUTS)] = Field(
        (), description="Files sent to POST /v1/files before, and the path at which the agent finds each."
    )
    limits: LimitsAsked = Field(LimitsAsked(), description="Only ever lower than the assistant's.")

    def to_domain(self) -> NewWorkItem:
        """What the service takes."""
        given = self.model_dump(exclude={"amount", "inputs", "limits"})
        try:
            return NewWorkItem(**given, amount_nano_usd=nano(self.amount), inputs=self.inputs, limits=self.limits)
        except ValidationError as error:
            raise invalid_body(error) from error


class CancelBody(Body):
    """Why it is to end."""

    reason: Reason = ""


class RiskFactorAnswer(Answer):
    """One reason for the score."""

    id: str
    points: int
    words: str
    at_least: RiskLevel | None = Field(None, description="Set for a floor: the level is not below this one.")

    @classmethod
    def of(cls, factor: RiskFactor) -> Self:
        """The answer for a factor."""
        return cls(id=factor.id, points=factor.points, words=factor.words, at_least=factor.at_least)


class DryRunAnswer(Answer):
    """What the work item would be if it were created now; nothing is written."""

    score: int
    level: RiskLevel
    factors: list[RiskFactorAnswer]
    needs_approval: bool
    tier: ApprovalTier | None
    quorum: int
    who: str = Field(description="Who would decide, in words.")
    worst_case: str
    worst_case_nano: int
    policy_version: int

    @classmethod
    def of(cls, given: DryRun) -> Self:
        """The answer for a dry run."""
        return cls(
            score=given.score,
            level=given.level,
            factors=[RiskFactorAnswer.of(factor) for factor in given.factors],
            needs_approval=given.needs_approval,
            tier=given.tier,
            quorum=given.quorum,
            who=given.who,
            worst_case=given.worst_case,
            worst_case_nano=given.worst_case_nano,
            policy_version=given.policy_version,
        )


class WorkItemLine(Answer):
    """A work item in a list."""

    id: UUID
    tenant_id: UUID
    assistant_id: UUID
    requester_id: UUID
    title: str
    kind: str
    status: WorkItemStatus
    null_runner: bool = Field(description="Development: nothing was executed.")
    risk_level: RiskLevel | None
    risk_score: int | None
    worst_case: str
    worst_case_nano: int
    cost: str | None
    cost_nano: int | None
    reason: str
    outcome: str | None
    cancel_requested_at: datetime | None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, row: WorkItemRow) -> Self:
        """The answer for a row."""
        return cls.model_validate(_line(row))


class WorkItemAnswer(WorkItemLine):
    """A work item, whole."""

    assistant: str = Field(description="The assistant's slug.")
    requester: str
    factors: list[str] = Field(description="Why the risk is what it is, in words.")
    needs_approval: bool
    cancel_requested: bool
    held: bool = Field(description="A halt keeps it from going on.")
    run_id: UUID | None
    attempt: int
    facts: dict[str, Any]
    parameters: dict[str, Any]
    spec_digest: str = Field(description="SHA-256 over the RFC 8785 form of exactly what runs.")
    policy_version_id: UUID
    result: dict[str, Any] | None
    cancel_reason: str | None
    costs: CostAnswer = Field(description="The cost so far, by what for.")

    @classmethod
    def whole(cls, row: WorkItemRow, summary: WorkItemSummary, costs: CostSplit) -> Self:
        """The answer for a row and what hangs on it."""
        fields = _line(row) | row.model_dump(
            include={"facts", "parameters", "spec_digest", "policy_version_id", "result", "cancel_reason"}
        )
        fields |= summary.model_dump(
            include={
                "assistant",
                "requester",
                "factors",
                "needs_approval",
                "cancel_requested",
                "held",
                "run_id",
                "attempt",
            }
        )
        return cls.model_validate(fields | {"costs": CostAnswer.of(costs)})


def _line(row: WorkItemRow) -> dict[str, Any]:
    fields = row.model_dump(include=set(WorkItemLine.model_fields))
    return fields | {"worst_case": words(row.worst_case_nano), "cost": words(row.cost_nano)}


class WorkItemPage(Answer):
    """A page of work items, newest first."""

    items: list[WorkItemLine]
    next_cursor: str | None


class EventAnswer(Answer):
    """One thing that happened; an event of the audit trail."""

    seq: int
    at: datetime
    kind: str = Field(examples=["work_item.created"])
    actor: str
    subject: str
    summary: str
    data: dict[str, Any]

    @classmethod
    def of(cls, event: AuditView) -> Self:
        """The answer for an event."""
        return cls(
            seq=event.seq,
            at=event.occurred_at,
            kind=event.kind,
            actor=event.actor_name or event.actor_id,
            subject=event.subject,
            summary=event.summary,
            data=event.data,
        )


class Timeline(Answer):
    """What happened to a work item, in order."""

    items: list[EventAnswer]
    next_after: int | None = Field(description="`after` of the next page; null: that was all, so far.")
