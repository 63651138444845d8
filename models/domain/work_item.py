"""A work item: its states, and the facts about it that the rules see."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from models.domain.money import ZERO, Amount


class WorkItemStatus(StrEnum):
    """Where a work item is in its life. *Held* and *snoozed* are flags beside it, not states."""

    SUBMITTED = "submitted"
    ASSESSING = "assessing"
    AWAITING_BUDGET = "awaiting_budget"
    AWAITING_APPROVAL = "awaiting_approval"
    QUEUED = "queued"
    RUNNING = "running"
    AWAITING_ACTION = "awaiting_action"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    HALTED = "halted"

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return self in FINAL


FINAL: frozenset[WorkItemStatus] = frozenset(
    {
        WorkItemStatus.SUCCEEDED,
        WorkItemStatus.FAILED,
        WorkItemStatus.REJECTED,
        WorkItemStatus.EXPIRED,
        WorkItemStatus.CANCELLED,
        WorkItemStatus.HALTED,
    }
)
OPEN: frozenset[WorkItemStatus] = frozenset(WorkItemStatus) - FINAL


class DataClass(StrEnum):
    """The most sensitive data that the work touches. `personal` is data about people (GDPR)."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    PERSONAL = "personal"
    RESTRICTED = "restricted"


class Reversibility(StrEnum):
    """What undoing the work takes."""

    REVERSIBLE = "reversible"
    COSTLY = "costly"
    IRREVERSIBLE = "irreversible"


class ExternalEffect(StrEnum):
    """Who notices: nobody, the own company, or somebody outside of it."""

    NONE = "none"
    INTERNAL = "internal"
    EXTERNAL = "external"


class KnownKind(StrEnum):
    """Kinds of action that the default policy knows. A kind is free text; an unknown one scores higher."""

    READ = "read"
    ANALYSE = "analyse"
    RECONCILE = "reconcile"
    REPORT = "report"
    DRAFT = "draft"
    UPDATE_RECORDS = "update_records"
    PREPARE_PAYMENT = "prepare_payment"
    EXECUTE_PAYMENT = "execute_payment"
    SEND_MESSAGE = "send_message"
    DELETE_DATA = "delete_data"
    CHANGE_ACCESS = "change_access"
    SIGN_CONTRACT = "sign_contract"
    DEPLOY = "deploy"


KNOWN_KINDS: frozenset[str] = frozenset(KnownKind)

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.:-]{0,63}$")]
"""A short machine word: lower case, digits and ``_ . : -``."""
ActionKind = Slug
ToolName = Slug

MAX_TOOLS = 64


class AssistantRecord(BaseModel):
    """What is known of the assistant's past, as counted when the item was assessed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs: Annotated[int, Field(ge=0, le=2**53)] = 0
    failed: Annotated[int, Field(ge=0, le=2**53)] = 0
    rejected: Annotated[int, Field(ge=0, le=2**53)] = 0
    age_days: Annotated[int, Field(ge=0, le=2**53)] = 0
    restartable: bool = False

    @model_validator(mode="after")
    def _failed_is_part_of_runs(self) -> Self:
        if self.failed > self.runs:
            raise ValueError(f"failed ({self.failed}) is more than runs ({self.runs})")
        return self


class WorkItemFacts(BaseModel):
    """Everything the risk rules see. A fact left out takes its cautious value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ActionKind
    data_class: DataClass
    reversibility: Reversibility = Reversibility.IRREVERSIBLE
    external_effect: ExternalEffect = ExternalEffect.EXTERNAL
    amount_nano_usd: Amount = ZERO
    """The sum that the work itself moves or prepares to move; not what running it costs."""
    tools: Annotated[frozenset[ToolName], Field(max_length=MAX_TOOLS)] = frozenset()
    assistant: AssistantRecord = AssistantRecord()
