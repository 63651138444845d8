"""What services answer: frozen pictures of rows, made for workflows, screens and the public API."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from models.domain.approval import ApprovalStatus, ApprovalTier, RefusalCode, Verdict
from models.domain.risk import RiskFactor, RiskLevel
from models.domain.work_item import WorkItemStatus


class View(BaseModel):
    """A frozen answer."""

    model_config = ConfigDict(frozen=True)


class WorkItemSummary(View):
    """What a workflow needs to know to go on; the same fields as `activities.signatures.WorkItemView`.

    Attributes:
        needs_approval: The level calls for humans, and no approval of this very spec stands yet.
        held: A halt is in force: what waits goes on waiting.
        suspended: Its run has ended until people have decided; nothing is to be followed.
        worst_case: Money in words, as are `cost` and `factors`.
        staged: How many staged effects are to be committed before the item ends; its run has ended well.
    """

    status: WorkItemStatus
    title: str
    assistant: str
    requester: str
    level: RiskLevel | None = None
    score: int | None = None
    factors: tuple[str, ...] = ()
    worst_case: str = ""
    cost: str = ""
    needs_approval: bool = False
    cancel_requested: bool = False
    held: bool = False
    restartable: bool = False
    run_id: UUID | None = None
    attempt: int = 0
    suspended: bool = False
    reason: str = ""
    staged: int = 0


class DryRun(View):
    """What a work item would be if it were created now; nothing is written."""

    score: int
    level: RiskLevel
    factors: tuple[RiskFactor, ...]
    needs_approval: bool
    tier: ApprovalTier | None
    quorum: int
    who: str
    worst_case_nano: int
    worst_case: str
    policy_version: int


class FileView(View):
    """A file that goes in or came out."""

    direction: str
    path: str
    sha256: str
    size: int


class VoteView(View):
    """One human's recorded answer."""

    name: str
    subject: str
    tenant_id: UUID
    as_holding: bool
    verdict: Verdict
    reason: str
    channel: str
    acr: str | None
    at: datetime


class Subject(StrEnum):
    """What an approval is about."""

    WORK_ITEM = "work_item"
    ACTION = "action"
    ACTION_SET = "action_set"


class AskedAction(View):
    """An action in an approval's question: exactly what would be done.

    Attributes:
        why: What the agent gives as its reason.
    """

    id: UUID
    kind: str
    target: str
    why: str
    parameters: dict[str, Any]
    effect: dict[str, Any] | None
    level: RiskLevel
    digest: str
    position: int | None


class ApprovalContext(View):
    """Everything that a human needs to decide.

    Attributes:
        subject: What it is about; `actions` holds that action, or those of that set in their order.
        work_item_id: What runs, or in whose course it was asked; None: the agent runs elsewhere.
        earlier: What became of the run's actions so far, in words.
        subject_digest: Digest of exactly what would run or be done; a decision names it back.
        may_edit: Whether `edits` may come with a yes.
        may_decide: Whether the reader may, as the rules see it now (a reason is asked for later).
        refusal: Why not, in words.
    """

    id: UUID
    tenant_id: UUID
    company: str
    subject: Subject = Subject.WORK_ITEM
    work_item_id: UUID | None
    action_id: UUID | None = None
    action_set_id: UUID | None = None
    actions: tuple[AskedAction, ...] = ()
    earlier: tuple[str, ...] = ()
    title: str
    kind: str
    assistant: str
    requester: str
    status: ApprovalStatus
    reason: str
    level: RiskLevel
    score: int
    factors: tuple[RiskFactor, ...]
    facts: dict[str, Any]
    parameters: dict[str, Any]
    files: tuple[FileView, ...]
    worst_case_nano: int
    worst_case: str
    subject_digest: str
    tier: ApprovalTier
    quorum: int
    reason_required: bool
    requires_acr: tuple[str, ...]
    who: str
    votes: tuple[VoteView, ...]
    votes_in_words: str
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    may_decide: bool
    may_edit: bool = False
    refusal: str = ""
    refusal_code: RefusalCode | None = None


class AuditView(View):
    """One event of a tenant's trail, whole: what its hash is computed over is all here."""

    tenant_id: UUID
    seq: int
    occurred_at: datetime
    kind: str
    actor_tenant_id: UUID | None
    actor_id: str
    actor_name: str
    work_item_id: UUID | None
    subject: str
    summary: str
    data: dict[str, Any]
    prev_hash: str
    hash: str


class ChainReport(View):
    """What a verification of a tenant's trail found.

    Attributes:
        whole: Every hash and every number follows from the one before, up to the recorded head.
        first_bad_seq: Where it first does not; None when it is whole.
    """

    tenant_id: UUID
    whole: bool
    events: int
    head_seq: int
    head_hash: str
    first_bad_seq: int | None = None
    words: str


class HaltState(View):
    """A halt as it stands."""

    scope: str
    key: str
    active: bool
    mode: str
    reason: str
    changed_by: str
    changed_at: datetime
    epoch: int


class Page(View):
    """A page of a list; `next_cursor` is opaque, None at the end."""

    next_cursor: str | None = None
