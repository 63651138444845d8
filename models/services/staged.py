"""Staged effects: collected in the run, decided as one exact set, committed in order, stopped at the first failure.

INVARIANT: the order of locks is item → set → members; the item's lock makes one of two that advance the same set first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import ActionStatus
from models.domain.approval import ApprovalRequirement
from models.domain.principal import Principal
from models.domain.risk import RiskLevel
from models.domain.run import RunStatus
from models.domain.work_item import WorkItemStatus
from models.repositories import actions as action_rows
from models.repositories import effects as rows
from models.repositories import work_items as item_rows
from models.rules.approval import requirement_for
from models.services import action_ends, audit, lifecycle, policies
from models.services.action_approvals import open_question
from models.services.action_set_ends import discard_all, stop, write
from models.services.effect_leave import set_digest
from models.services.ids import new_id
from models.services.who_decides import who_decides
from models.tables.actions import ActionRow, ActionSetRow
from models.tables.execution import RunRow
from models.tables.work import ApprovalRow, RiskAssessmentRow, WorkItemRow
from sandbox.spec import RunOutcome


class Advance(StrEnum):
    """What is next for an item's staged effects."""

    DONE = "done"
    """Nothing: there are none, or the set has its end."""
    ASKED = "asked"
    """People decide about the set."""
    PERFORM = "perform"
    """The next member is to be performed, or is under way."""
    DOUBT = "doubt"
    """Of one nobody knows whether it was done: people say whether to try again."""


@dataclass(frozen=True)
class Staged:
    """What is next, for the workflow.

    Attributes:
        action_id: The member to be performed, or that is in doubt.
        approval_id: The open question.
        expires_at: When that ends.
    """

    state: Advance
    words: str = ""
    action_id: UUID | None = None
    approval_id: UUID | None = None
    expires_at: datetime | None = None


async def advance(session: AsyncSession, principal: Principal, work_item_id: UUID) -> Staged:
    """Say what is next for the staged effects of an item whose run has ended well; repeatable.

    Raises:
        NotFound: There is no such item.
    """
    item = await lifecycle.lock_work_item(session, work_item_id)
    run = await item_rows.latest_run(session, item.id)
    if not may_commit(item, run):
        return Staged(Advance.DONE, "nothing is to be committed")
    if item.cancel_requested_at is not None:
        await discard_all(session, principal, item, item.cancel_reason or "the work item is being cancelled")
        return Staged(Advance.DONE, "cancelled")
    found = await _set(session, principal, item)
    if found is None:
        return Staged(Advance.DONE, "nothing is staged")
    if found.ended_at is not None:
        # What is in no set was asked about by nobody.
        await discard_all(session, principal, item, f"the staged effects are {found.status}")
        return Staged(Advance.DONE, found.reason)
    if found.status == "pending":
        return await _asked(session, principal, item, found)
    return await _next(session, principal, found)


async def open_members(session: AsyncSession, item: WorkItemRow, run: RunRow | None) -> int:
    """How many staged effects of an item are to be committed before it ends; 0 while its run goes on."""
    if not may_commit(item, run):
        return 0
    members = [row for row in await action_rows.of_item(session, item.id) if row.position is not None]
    found = await rows.set_of_item(session, item.tenant_id, item.id) if members else None
    if found is not None and found.ended_at is None:
        return max(1, sum(row.ended_at is None for row in members))
    return sum(row.status == ActionStatus.STAGED for row in members)


def may_commit(item: WorkItemRow, run: RunRow | None) -> bool:
    """Whether the item's run has ended well, and the item not yet."""
    ended = run is not None and run.status == RunStatus.ENDED and run.outcome == RunOutcome.SUCCEEDED
    return ended and not WorkItemStatus(item.status).is_final


async def verdict(session: AsyncSession, item: WorkItemRow) -> tuple[WorkItemStatus, str]:
    """What its staged effects make of an item whose run succeeded, and why in words."""
    found = await rows.set_of_item(session, item.tenant_id, item.id)
    if found is None or found.status == "committed":
        return WorkItemStatus.SUCCEEDED, ""
    members = await action_rows.of_set(session, found.tenant_id, found.id)
    done = sum(row.status == ActionStatus.PERFORMED for row in members)
    words = f"{done} of {len(members)} staged effects are performed"
    if item.cancel_requested_at is not None:
        return WorkItemStatus.CANCELLED, f"{item.cancel_reason or 'cancelled'}; {words}"
    return WorkItemStatus.FAILED, f"the staged effects are {found.status}: {found.reason or 'nobody said why'}; {words}"


async def _set(session: AsyncSession, principal: Principal, item: WorkItemRow) -> ActionSetRow | None:
    known = await rows.set_of_item(session, item.tenant_id, item.id)
    if known is not None:
        return await rows.lock_set(session, item.tenant_id, known.id)
    found = await action_rows.lock_unended(session, item.tenant_id, item.id)
    members = sorted((row for row in found if row.status == ActionStatus.STAGED), key=lambda row: row.position or 0)
    return await _build(session, principal, item, members) if members else None


async def _build(
    session: AsyncSession, principal: Principal, item: WorkItemRow, members: Sequence[ActionRow]
) -> ActionSetRow:
    """Make the set of exactly these, and ask about it once where its level calls for people."""
    highest = max(members, key=lambda row: (RiskLevel(row.level), row.score))
    found = ActionSetRow(
        tenant_id=item.tenant_id,
        id=new_id(),
        work_item_id=item.id,
        digest=set_digest(item.id, members),
        level=highest.level,
        status="pending",
    )
    session.add(found)
    await session.flush()
    for position, row in enumerate(members, 1):
        row.set_id, row.position = found.id, position
        session.add(row)
    await session.flush()
    audit.record(
        session,
        principal,
        kind="action_set.collected",
        subject=f"action_set/{found.id}",
        summary=f"{len(members)} staged effects of “{item.title}” are to be committed ({found.level})",
        work_item_id=item.id,
        data={"digest": found.digest, "level": found.level, "actions": [row.digest for row in members]},
    )
    policy = await policies.pinned(session, item.tenant_id, item.policy_version_id)
    requirement = requirement_for(policy, RiskLevel(found.level))
    if requirement is None:
        await write(session, principal, found, "approved", f"{found.level} goes on by itself")
    else:
        await _ask(session, principal, item, found, highest, len(members), requirement)
    return found


async def _ask(
    session: AsyncSession,
    principal: Principal,
    item: WorkItemRow,
    found: ActionSetRow,
    highest: ActionRow,
    count: int,
    requirement: ApprovalRequirement,
) -> None:
    copied = highest.model_dump(include={"score", "factors", "facts", "tenant_id", "policy_version_id"})
    assessment = RiskAssessmentRow(
        id=new_id(), work_item_id=item.id, action_set_id=found.id, level=found.level, **copied
    )
    session.add(assessment)
    await session.flush()
    await open_question(
        session,
        principal,
        approval=ApprovalRow(
            tenant_id=item.tenant_id,
            id=new_id(),
            work_item_id=item.id,
            action_set_id=found.id,
            assessment_id=assessment.id,
            policy_version_id=item.policy_version_id,
            level=requirement.level.value,
            subject_digest=found.digest,
            tier=requirement.tier.value,
        ),
        requirement=requirement,
        about=f"{count} staged effects of “{item.title}”",
    )
    waits = f"{count} staged effects wait for {await who_decides(session, item.tenant_id, requirement)}"
    await action_ends.waits(session, principal, item, waits)


async def _asked(session: AsyncSession, principal: Principal, item: WorkItemRow, found: ActionSetRow) -> Staged:
    asked = [
        row
        for row in await rows.approvals_of_set(session, found.tenant_id, found.id)
        if row.subject_digest == found.digest
    ]
    if not asked or asked[-1].ended_at is not None:
        # A final answer is taken over with it; a set without its question can never be decided.
        await stop(session, principal, found, "discarded", "its question is gone")
        await action_ends.go_on(session, principal, item)
        return Staged(Advance.DONE, found.reason)
    newest = asked[-1]
    return Staged(Advance.ASKED, "people decide about the staged effects", None, newest.id, newest.expires_at)


async def _next(session: AsyncSession, principal: Principal, found: ActionSetRow) -> Staged:
    """The first member that is not performed says what is next."""
    members = await action_rows.of_set(session, found.tenant_id, found.id)
    row = next((one for one in members if one.status != ActionStatus.PERFORMED), None)
    if row is None:
        await write(session, principal, found, "committed", f"all {len(members)} effects are performed")
        return Staged(Advance.DONE, found.reason)
    what = f"{row.kind} → {row.target} (effect {row.position} of {len(members)})"
    if row.status in (ActionStatus.STAGED, ActionStatus.PERFORMING):
        return Staged(Advance.PERFORM, what, row.id)
    if row.status == ActionStatus.UNKNOWN and row.ended_at is None:
        return Staged(Advance.DOUBT, f"nobody knows whether {what} was done", row.id, row.approval_id)
    why = f"{what} is {row.status}: {row.words}"
    rest = await stop(session, principal, found, "stopped", why)
    found.reason = f"{why}; {rest} after it are untouched"
    session.add(found)
    await session.flush()
    return Staged(Advance.DONE, found.reason)
