"""The steps of an approval: opened, read, expired, closed, reminded of. The outcome is always read from its row."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio import activity

from activities.signatures import ApprovalInput, ApprovalOpened, ApprovalOutput, WorkItemInput
from activities.work_item import Done
from models.domain.approval import ApprovalStatus
from models.domain.principal import Principal, service_principal
from models.services import approvals
from models.services.operations import once
from models.services.who_decides import who_decides
from models.storage.db import Database
from models.tables.work import ApprovalRow

Act = Callable[[AsyncSession, Principal], Awaitable[object]]


class Approvals:
    """What the workflows ask of approvals."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @activity.defn(name="open_approval")
    async def open_approval(self, given: WorkItemInput) -> ApprovalOpened:
        """Open the approval that the level calls for (or find the open one); repeatable by itself."""
        principal = service_principal("control", given.tenant_id)
        async with self._db.session_for(principal) as session:
            return await _opened(session, await approvals.open_approval(session, principal, given.work_item_id))

    @activity.defn(name="describe_approval")
    async def describe_approval(self, given: ApprovalInput) -> ApprovalOpened:
        """Read when the approval ends, when to remind, and who may decide."""
        async with self._db.session_for(service_principal("control", given.tenant_id)) as session:
            return await _opened(session, await approvals.outcome(session, given.approval_id))

    @activity.defn(name="read_approval")
    async def read_approval(self, given: ApprovalInput) -> ApprovalOutput:
        """Read the approval's outcome."""
        async with self._db.session_for(service_principal("control", given.tenant_id)) as session:
            return await _output(session, await approvals.outcome(session, given.approval_id))

    @activity.defn(name="expire_approval")
    async def expire_approval(self, given: ApprovalInput) -> ApprovalOutput:
        """Expire the approval if its time has passed by the database's clock; answers whatever outcome stands."""
        # Not once: a try before the time, by a clock that is ahead, must not stand for the one after it.
        principal = service_principal("control", given.tenant_id)
        async with self._db.session_for(principal) as session:
            return await _output(session, await approvals.expire(session, principal, given.approval_id))

    @activity.defn(name="cancel_approval")
    async def cancel_approval(self, given: ApprovalInput) -> ApprovalOutput:
        """Close the approval if what waits for it is over: the database says so, not the message that asked for it."""
        principal = service_principal("control", given.tenant_id)
        async with self._db.session_for(principal) as session:
            row = await approvals.outcome(session, given.approval_id)
            if not await approvals.is_needed(session, row):
                row = await approvals.cancel(session, principal, given.approval_id, "nobody needs it any more")
            return await _output(session, row)

    @activity.defn(name="remind_approvers")
    async def remind_approvers(self, given: ApprovalInput) -> ApprovalOutput:
        """Tell the approvers again (once a step); answers the outcome as it stands."""
        principal = service_principal("control", given.tenant_id)
        async with self._db.session_for(principal) as session:

            async def remind() -> Done:
                await approvals.tell_approvers(session, principal, given.approval_id)
                return Done()

            await once(session, given.tenant_id, given.op_id, Done, remind)
            return await _output(session, await approvals.outcome(session, given.approval_id))


async def _opened(session: AsyncSession, row: ApprovalRow) -> ApprovalOpened:
    requirement = approvals.requirement_of(row)
    return ApprovalOpened(
        approval_id=row.id,
        status=ApprovalStatus(row.status),
        expires_at=row.expires_at,
        remind_at=tuple(row.created_at + timedelta(seconds=after) for after in requirement.remind_after_seconds),
        who=await who_decides(session, row.tenant_id, requirement),
        words=await approvals.votes_in_words(session, row),
    )


async def _output(session: AsyncSession, row: ApprovalRow) -> ApprovalOutput:
    votes = await approvals.votes_in_words(session, row)
    return ApprovalOutput(status=ApprovalStatus(row.status), reason=row.reason, votes=votes)
