"""The activities' typed stubs and their input and output values: what workflows import.

Every value is frozen and far under 32 KB: ids, digests, words. A stub's body never runs; `tests/architecture` compares
each with its implementation.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NoReturn
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from temporalio import activity

from models.domain.approval import ApprovalStatus
from models.domain.views import WorkItemSummary as WorkItemView
from models.domain.work_item import WorkItemStatus


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class WorkItemInput(_Value):
    """Names a work item and the one step done to it.

    Attributes:
        op_id: `<workflow id>/<step>/<ordinal>`; a repeat answers what the first try answered.
    """

    tenant_id: UUID
    work_item_id: UUID
    op_id: str


class ReserveOutput(_Value):
    """Whether the worst case is held.

    Otherwise the item is `awaiting_budget`: try again at `retry_at` or when told; give up at `deadline`.
    """

    held: bool
    words: str = ""
    retry_at: datetime | None = None
    deadline: datetime | None = None


class ApprovalOpened(_Value):
    """An approval was opened, or is already open."""

    approval_id: UUID
    status: ApprovalStatus
    expires_at: datetime
    remind_at: tuple[datetime, ...] = ()
    who: str = ""
    words: str = ""


class ApprovalInput(_Value):
    """Names an approval."""

    tenant_id: UUID
    approval_id: UUID
    op_id: str


class ApprovalOutput(_Value):
    """The outcome as PostgreSQL holds it."""

    status: ApprovalStatus
    reason: str = ""
    votes: str = ""


class WarrantState(StrEnum):
    """What came of a request for a warrant."""

    MINTED = "minted"
    HALTED = "halted"
    """A halt holds it back; ask again when told."""
    BUDGET = "budget"
    """The hold's window has passed and could not be re-taken; reserve again."""
    ENDED = "ended"
    """The item is final or its run is not open for a claim."""


class WarrantOutput(_Value):
    """The warrant itself stays in PostgreSQL; `run_id` and `attempt` name what it lets run."""

    state: WarrantState
    run_id: UUID | None = None
    attempt: int = 0
    claim_before: datetime | None = None
    words: str = ""


class RunInput(_Value):
    """Names a run's attempt."""

    tenant_id: UUID
    work_item_id: UUID
    run_id: UUID
    attempt: int
    op_id: str


class PlaceState(StrEnum):
    """What came of placing a run."""

    PLACED = "placed"
    """Claimed, and handed over (or perhaps handed over: `follow_run` finds out)."""
    STALE = "stale"
    """The warrant does not hold any more: mint anew."""
    ENDED = "ended"
    """The run or its item is final."""


class PlaceOutput(_Value):
    """What came of placing, and why in words."""

    state: PlaceState
    words: str = ""


class FollowState(StrEnum):
    """How a followed attempt ended."""

    ENDED = "ended"
    GONE = "gone"
    """The lease and its grace passed without a word."""
    NOT_STARTED = "not_started"
    """The runtime says that the container never started: safe to place again."""
    SUSPENDED = "suspended"
    """It has ended until people have decided; the item is told when they have."""


class FollowOutput(_Value):
    """How the attempt ended; `outcome` is a `RunOutcome` where there is one."""

    state: FollowState
    outcome: str = ""
    words: str = ""


class CloseInput(_Value):
    """End a work item without a (further) run; `reason` is for people."""

    tenant_id: UUID
    work_item_id: UUID
    status: WorkItemStatus
    reason: str
    op_id: str


class EffectInput(_Value):
    """Names an action whose effect is to be performed."""

    tenant_id: UUID
    action_id: UUID
    op_id: str


class EffectMintState(StrEnum):
    """What came of a request for leave to perform."""

    MINTED = "minted"
    HALTED = "halted"
    UNSETTLED = "unsettled"
    """A try is under way, or has ended and nobody has said what follows."""
    ENDED = "ended"


class EffectMintOutput(_Value):
    """The warrant itself stays in PostgreSQL."""

    state: EffectMintState
    words: str = ""


class EffectOutput(_Value):
    """What came of a try, in words; what is so is read from PostgreSQL."""

    words: str = ""


class SettleState(StrEnum):
    """What follows from the tries."""

    DONE = "done"
    AGAIN = "again"
    WAIT = "wait"


class SettleOutput(_Value):
    """What follows; `until` is when a try's time is over."""

    state: SettleState
    words: str = ""
    until: datetime | None = None


class StagedState(StrEnum):
    """What is next for an item's staged effects."""

    DONE = "done"
    ASKED = "asked"
    PERFORM = "perform"
    DOUBT = "doubt"
    """Of one nobody knows whether it was done; people are asked."""


class StagedOutput(_Value):
    """What is next: the open question and its end, or the effect to be performed."""

    state: StagedState
    words: str = ""
    action_id: UUID | None = None
    approval_id: UUID | None = None
    expires_at: datetime | None = None


class DeliveryInput(_Value):
    """Names an outbox entry that a delivery carries out of the house."""

    tenant_id: UUID
    outbox_id: UUID
    op_id: str


class DeliveryOutput(_Value):
    """Whether the receiver has it; `words` is what it answered."""

    delivered: bool
    words: str = ""


class ReconcileInput(_Value):
    """One page of reconciliation: open rows after this id.

    Attributes:
        run: The reconciling workflow's run, so that what it audits names who saw it.
    """

    after: UUID | None = None
    limit: int = 200
    run: str = ""


class ReconcileOutput(_Value):
    """What was mended, and where the next page starts (None: that was all)."""

    seen: int
    started: int = 0
    settled: int = 0
    cancelled: int = 0
    released: int = 0
    failed: int = 0
    """Rows that could not be mended this time; they are logged, and the next run tries again."""
    next_after: UUID | None = None


def _stub() -> NoReturn:
    raise NotImplementedError("a signature is never called; the worker registers its implementation")


@activity.defn(name="assess_work_item")
async def assess_work_item(given: WorkItemInput) -> WorkItemView:
    """Score the risk by the pinned policy version and write the assessment (once)."""
    _stub()


@activity.defn(name="read_work_item")
async def read_work_item(given: WorkItemInput) -> WorkItemView:
    """Read what PostgreSQL holds."""
    _stub()


@activity.defn(name="reserve_budget")
async def reserve_budget(given: WorkItemInput) -> ReserveOutput:
    """Hold the worst case on every budget that applies, all or nothing."""
    _stub()


@activity.defn(name="open_approval")
async def open_approval(given: WorkItemInput) -> ApprovalOpened:
    """Open the approval that the level calls for (or find the open one)."""
    _stub()


@activity.defn(name="describe_approval")
async def describe_approval(given: ApprovalInput) -> ApprovalOpened:
    """Read when the approval ends, when to remind, and who may decide."""
    _stub()


@activity.defn(name="read_approval")
async def read_approval(given: ApprovalInput) -> ApprovalOutput:
    """Read the approval's outcome."""
    _stub()


@activity.defn(name="expire_approval")
async def expire_approval(given: ApprovalInput) -> ApprovalOutput:
    """Expire the approval if its time has passed by the database's clock; answers whatever outcome stands."""
    _stub()


@activity.defn(name="cancel_approval")
async def cancel_approval(given: ApprovalInput) -> ApprovalOutput:
    """Close an approval that nobody needs any more; answers whatever outcome stands."""
    _stub()


@activity.defn(name="remind_approvers")
async def remind_approvers(given: ApprovalInput) -> ApprovalOutput:
    """Tell the approvers again; answers the outcome as it stands."""
    _stub()


@activity.defn(name="queue_run")
async def queue_run(given: WorkItemInput) -> WorkItemView:
    """Move the item to `queued` and make its run's row."""
    _stub()


@activity.defn(name="mint_warrant")
async def mint_warrant(given: WorkItemInput) -> WarrantOutput:
    """Recompute everything in one transaction and, if all of it holds, write the signed warrant."""
    _stub()


@activity.defn(name="place_run")
async def place_run(given: RunInput) -> PlaceOutput:
    """Claim the run and hand it to a runtime of its tenant (queue `run/<tenant>`)."""
    _stub()


@activity.defn(name="follow_run")
async def follow_run(given: RunInput) -> FollowOutput:
    """Watch the run's row until it is ended or its lease is over (queue `broker`)."""
    _stub()


@activity.defn(name="finish_work_item")
async def finish_work_item(given: WorkItemInput) -> WorkItemView:
    """Settle the cost, take the outcome over, end the item (once)."""
    _stub()


@activity.defn(name="end_lost_run")
async def end_lost_run(given: RunInput) -> FollowOutput:
    """Say by the database's clock that a run is gone: end it, or open it for a new attempt if it may be run again."""
    _stub()


@activity.defn(name="close_work_item")
async def close_work_item(given: CloseInput) -> WorkItemView:
    """End the item as rejected, expired, cancelled, halted or failed; free its hold.

    While a run is claimed it is not ended but killed; the answer is then not final, and the run is followed to its end.
    """
    _stub()


@activity.defn(name="note_cancel")
async def note_cancel(given: CloseInput) -> WorkItemView:
    """Write down a cancellation that was asked of Temporal, as `cancel_requested`: one path for every cancel."""
    _stub()


@activity.defn(name="mint_effect")
async def mint_effect(given: EffectInput) -> EffectMintOutput:
    """Recompute everything in one transaction and, if all of it holds, write the signed warrant for one effect."""
    _stub()


@activity.defn(name="perform_effect")
async def perform_effect(given: EffectInput) -> EffectOutput:
    """Burn the warrant, send, and write down what came of it."""
    _stub()


@activity.defn(name="settle_effect")
async def settle_effect(given: EffectInput) -> SettleOutput:
    """Say what follows from the tries; what nobody knows is put before people."""
    _stub()


@activity.defn(name="advance_staged")
async def advance_staged(given: WorkItemInput) -> StagedOutput:
    """Say what is next for the staged effects of an item whose run has ended well."""
    _stub()


@activity.defn(name="deliver")
async def deliver(given: DeliveryInput) -> DeliveryOutput:
    """Send one webhook, signed, with the outbox entry's id as its idempotency key."""
    _stub()


@activity.defn(name="reconcile_work_items")
async def reconcile_work_items(given: ReconcileInput) -> ReconcileOutput:
    """Compare a page of open rows with Temporal by `describe` and mend what differs."""
    _stub()


@activity.defn(name="reconcile_approvals")
async def reconcile_approvals(given: ReconcileInput) -> ReconcileOutput:
    """The same for open approvals; one whose time has passed is expired."""
    _stub()


@activity.defn(name="reconcile_effects")
async def reconcile_effects(given: ReconcileInput) -> ReconcileOutput:
    """The same for effects that are to be performed; one whose workflow is gone is begun anew."""
    _stub()


@activity.defn(name="reconcile_money")
async def reconcile_money(given: ReconcileInput) -> ReconcileOutput:
    """Free holds whose work has ended; make the audit trail's partitions ahead."""
    _stub()
