"""An in-memory installation: activities that hold rows as PostgreSQL would, and remember what was asked of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import signatures as act
from models.domain.approval import ApprovalStatus
from models.domain.risk import RiskLevel
from models.domain.work_item import WorkItemStatus
from tests.workflows.effect_world import effects

S = WorkItemStatus
ENDS = {"succeeded": S.SUCCEEDED, "cancelled": S.CANCELLED, "halted": S.HALTED}


@dataclass
class World:
    """One work item's rows, and switches that tests set."""

    tenant_id: UUID = field(default_factory=uuid4)
    work_item_id: UUID = field(default_factory=uuid4)
    approval_id: UUID = field(default_factory=uuid4)
    run_id: UUID = field(default_factory=uuid4)
    status: WorkItemStatus = S.SUBMITTED
    level: RiskLevel = RiskLevel.L1
    reason: str = ""
    cancel_requested: bool = False
    halted: bool = False
    money: bool = True
    budget_retry_at: datetime | None = None
    budget_deadline: datetime | None = None
    approval: ApprovalStatus | None = None
    expires_at: datetime = datetime(2100, 1, 1, tzinfo=UTC)
    remind_at: tuple[datetime, ...] = ()
    attempt: int = 0
    claimed: bool = False
    claims: int = 0
    suspended: bool = False
    warrant: int = 0
    """The attempt that a live warrant lets run; 0: there is none."""
    outcome: str = ""
    restartable: bool = True
    claim_before: Callable[[], datetime | None] = lambda: None
    place_answers: list[act.PlaceState | Exception] = field(default_factory=list)
    follow_answers: list[act.FollowState | Exception] = field(default_factory=list)
    run_ends: asyncio.Event = field(default_factory=asyncio.Event)
    run_holds: bool = False
    """Whether a claimed run goes on until `run_ends` is set."""
    asked: Counter[str] = field(default_factory=Counter)
    steps: list[str] = field(default_factory=list)
    seen: dict[str, asyncio.Event] = field(default_factory=dict)
    broken: dict[str, Exception] = field(default_factory=dict)
    terminal: int = 0
    action_id: UUID = field(default_factory=uuid4)
    staged: list[UUID] = field(default_factory=list)
    """Actions that the run has staged."""
    staged_approval: ApprovalStatus | None = None
    """None: the set goes on by itself."""
    staged_stops: bool = False
    effects_halted: bool = False
    settle_answers: list[act.SettleOutput] = field(default_factory=list)
    """What comes of a try before it is performed."""
    warrants: set[UUID] = field(default_factory=set)
    performed: list[UUID] = field(default_factory=list)
    """What the other side has done, each time that it did."""

    @property
    def workflow_id(self) -> str:
        return f"work-item/{self.tenant_id}/{self.work_item_id}"

    def saw(self, step: str) -> asyncio.Event:
        """Set once that step was asked for."""
        return self.seen.setdefault(step, asyncio.Event())

    def note(self, step: str) -> None:
        self.asked[step] += 1
        self.steps.append(step)
        self.told(f"{step} {self.asked[step]}")
        if step in self.broken:
            raise self.broken[step]

    def told(self, step: str) -> None:
        self.saw(step).set()

    def view(self) -> act.WorkItemView:
        return act.WorkItemView(
            status=self.status,
            title="Reconcile the March statement",
            assistant="reconciler",
            requester="Rae Requester",
            level=self.level,
            score=40,
            factors=("amount above 10,000 USD: 20 points",),
            worst_case="1.25 USD",
            needs_approval=self.level.needs_approval and self.approval is not ApprovalStatus.APPROVED,
            cancel_requested=self.cancel_requested,
            held=self.halted,
            restartable=self.restartable,
            run_id=self.run_id if self.attempt else None,
            attempt=self.attempt,
            suspended=self.suspended,
            reason=self.reason,
            staged=len(self.to_commit),
        )

    @property
    def to_commit(self) -> list[UUID]:
        """Staged effects that stand between the run's end and the item's."""
        refused = ApprovalStatus.REJECTED is self.staged_approval or self.approval is ApprovalStatus.EXPIRED
        stopped = self.staged_stops or refused or self.cancel_requested
        if self.outcome != "succeeded" or stopped:
            return []
        return [one for one in self.staged if one not in self.performed]

    def end(self, status: WorkItemStatus, reason: str = "") -> None:
        if not self.status.is_final:
            self.status, self.reason, self.terminal = status, reason, self.terminal + 1
            if self.approval is ApprovalStatus.PENDING:
                self.approval = ApprovalStatus.CANCELLED

    def go_on(self) -> None:
        """People have decided about the action for which the run was suspended."""
        self.suspended, self.status = False, S.QUEUED

    def ask_cancel(self) -> None:
        self.cancel_requested = True
        if self.claimed:
            self.outcome = "cancelled"
            self.run_ends.set()

    def activities(self) -> list[Callable[..., Any]]:
        return [*_work_item(self), *_approval(self), *_run(self), *effects(self)]


def _not_found() -> ApplicationError:
    return ApplicationError("there is no such work item", type="not-found", non_retryable=True)


def _work_item(world: World) -> list[Callable[..., Any]]:  # noqa: C901 - one small function a step
    def known(given: act.WorkItemInput | act.CloseInput) -> None:
        if given.work_item_id != world.work_item_id:
            raise _not_found()

    @activity.defn(name="assess_work_item")
    async def assess(given: act.WorkItemInput) -> act.WorkItemView:
        known(given)
        world.note("assess")
        if world.status is S.SUBMITTED:
            world.status = S.ASSESSING
        return world.view()

    @activity.defn(name="read_work_item")
    async def read(given: act.WorkItemInput) -> act.WorkItemView:
        known(given)
        world.note("read")
        return world.view()

    @activity.defn(name="reserve_budget")
    async def reserve(given: act.WorkItemInput) -> act.ReserveOutput:
        world.note("reserve")
        if not world.money:
            world.status = S.AWAITING_BUDGET
            world.told("awaiting_budget")
        return act.ReserveOutput(
            held=world.money,
            words="" if world.money else "the month's budget is short by 1 USD",
            retry_at=world.budget_retry_at,
            deadline=world.budget_deadline,
        )

    @activity.defn(name="queue_run")
    async def queue(given: act.WorkItemInput) -> act.WorkItemView:
        world.note("queue")
        world.status = S.QUEUED if world.status is not S.RUNNING else world.status
        return world.view()

    @activity.defn(name="finish_work_item")
    async def finish(given: act.WorkItemInput) -> act.WorkItemView:
        world.note("finish")
        if world.outcome and not world.to_commit:
            world.end(
                {"succeeded": S.SUCCEEDED, "cancelled": S.CANCELLED, "halted": S.HALTED}.get(world.outcome, S.FAILED)
            )
        return world.view()

    @activity.defn(name="close_work_item")
    async def close(given: act.CloseInput) -> act.WorkItemView:
        known(given)
        world.note("close")
        if world.claimed and not world.outcome:
            world.ask_cancel()
        else:
            world.end(given.status, given.reason)
        return world.view()

    @activity.defn(name="note_cancel")
    async def note_cancel(given: act.CloseInput) -> act.WorkItemView:
        known(given)
        world.note("note_cancel")
        world.ask_cancel()
        return world.view()

    return [assess, read, reserve, queue, finish, close, note_cancel]


def _approval(world: World) -> list[Callable[..., Any]]:
    def outcome() -> act.ApprovalOutput:
        assert world.approval is not None
        return act.ApprovalOutput(status=world.approval, votes="0 of 1")

    def opened() -> act.ApprovalOpened:
        assert world.approval is not None
        return act.ApprovalOpened(
            approval_id=world.approval_id,
            status=world.approval,
            expires_at=world.expires_at,
            remind_at=world.remind_at,
            who="one approver of Acme",
        )

    @activity.defn(name="open_approval")
    async def open_approval(given: act.WorkItemInput) -> act.ApprovalOpened:
        world.note("open_approval")
        if world.approval is None:
            world.approval = ApprovalStatus.PENDING
            world.status = S.AWAITING_APPROVAL
        return opened()

    @activity.defn(name="describe_approval")
    async def describe(given: act.ApprovalInput) -> act.ApprovalOpened:
        world.note("describe_approval")
        return opened()

    @activity.defn(name="read_approval")
    async def read(given: act.ApprovalInput) -> act.ApprovalOutput:
        world.note("read_approval")
        world.told("awaiting_approval")
        return outcome()

    @activity.defn(name="expire_approval")
    async def expire(given: act.ApprovalInput) -> act.ApprovalOutput:
        world.note("expire_approval")
        if world.approval is ApprovalStatus.PENDING:
            world.approval = ApprovalStatus.EXPIRED
        return outcome()

    @activity.defn(name="cancel_approval")
    async def cancel(given: act.ApprovalInput) -> act.ApprovalOutput:
        world.note("cancel_approval")
        if world.status.is_final and world.approval is ApprovalStatus.PENDING:
            world.approval = ApprovalStatus.CANCELLED
        world.told("cancel_approval")
        return outcome()

    @activity.defn(name="remind_approvers")
    async def remind(given: act.ApprovalInput) -> act.ApprovalOutput:
        world.note("remind")
        return outcome()

    return [open_approval, describe, read, expire, cancel, remind]


def _run(world: World) -> list[Callable[..., Any]]:  # noqa: C901 - one small function a step
    @activity.defn(name="mint_warrant")
    async def mint(given: act.WorkItemInput) -> act.WarrantOutput:
        world.note("mint")
        if world.status.is_final:
            return act.WarrantOutput(state=act.WarrantState.ENDED)
        if world.claimed:
            return act.WarrantOutput(state=act.WarrantState.MINTED, run_id=world.run_id, attempt=world.attempt)
        if world.halted:
            world.told("held")
            return act.WarrantOutput(state=act.WarrantState.HALTED, words="everything is halted")
        if not world.money:
            return act.WarrantOutput(state=act.WarrantState.BUDGET)
        world.warrant = world.attempt + 1
        return act.WarrantOutput(
            state=act.WarrantState.MINTED,
            run_id=world.run_id,
            attempt=world.warrant,
            claim_before=world.claim_before(),
        )

    @activity.defn(name="place_run")
    async def place(given: act.RunInput) -> act.PlaceOutput:
        world.note("place")
        if world.status.is_final:
            return act.PlaceOutput(state=act.PlaceState.ENDED)
        if world.claimed or given.attempt != world.warrant or given.run_id != world.run_id:
            return act.PlaceOutput(state=act.PlaceState.STALE)
        answer = world.place_answers.pop(0) if world.place_answers else act.PlaceState.PLACED
        if isinstance(answer, Exception):
            raise answer
        if answer is act.PlaceState.PLACED:
            world.claims, world.warrant = world.claims + 1, 0
            world.claimed, world.attempt, world.status = True, given.attempt, S.RUNNING
        return act.PlaceOutput(state=answer)

    @activity.defn(name="follow_run")
    async def follow(given: act.RunInput) -> act.FollowOutput:
        world.note("follow")
        world.told("running")
        answer = world.follow_answers.pop(0) if world.follow_answers else act.FollowState.ENDED
        if isinstance(answer, Exception):
            raise answer
        if answer is act.FollowState.SUSPENDED:
            world.claimed, world.suspended, world.status = False, True, S.AWAITING_ACTION
        if answer is act.FollowState.ENDED:
            while world.run_holds and not world.run_ends.is_set():
                activity.heartbeat()
                try:
                    await asyncio.wait_for(world.run_ends.wait(), 1)
                except TimeoutError:
                    continue
            world.outcome = world.outcome or "succeeded"
        return act.FollowOutput(state=answer, outcome=world.outcome)

    @activity.defn(name="end_lost_run")
    async def end_lost(given: act.RunInput) -> act.FollowOutput:
        world.note("end_lost")
        world.claimed = False
        if world.restartable and not world.cancel_requested:
            world.status = S.QUEUED
            return act.FollowOutput(state=act.FollowState.GONE)
        world.outcome = "runtime_gone"
        return act.FollowOutput(state=act.FollowState.ENDED, outcome="runtime_gone")

    return [mint, place, follow, end_lost]


def in_(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)
