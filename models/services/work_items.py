"""Work items: created, read, listed, cancelled, and shown to workflows."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.errors import Conflict, Forbidden, InvalidInput, NotFound
from models.domain.money import format_usd
from models.domain.principal import Principal, Role
from models.domain.risk import RiskLevel
from models.domain.run import RunStatus
from models.domain.views import AuditView, WorkItemSummary
from models.domain.work_item import WorkItemStatus
from models.repositories import assistants as assistant_rows
from models.repositories import audit as audit_rows
from models.repositories import paging
from models.repositories import tenants as tenant_rows
from models.repositories import work_items as rows
from models.repositories.work_items import Filter
from models.rules.waiting import Waiting
from models.services import audit, lifecycle, staged, tenants
from models.services.halts import active_halt
from models.services.new_work_items import LimitsAsked, NewWorkItem, create_work_item, dry_run, request_digest
from models.services.outbox import OutboxKind, enqueue
from models.storage.db import Database
from models.tables.execution import RunRow
from models.tables.work import RiskAssessmentRow, WorkItemFileRow, WorkItemRow

__all__ = [
    "Filter",
    "LimitsAsked",
    "NewWorkItem",
    "acting_on",
    "create_work_item",
    "dry_run",
    "files",
    "latest_assessment",
    "latest_run",
    "list_page",
    "read",
    "request_cancel",
    "request_digest",
    "timeline",
    "view",
]


async def read(session: AsyncSession, principal: Principal, work_item_id: UUID) -> WorkItemRow:
    """One item of the principal's company, or of one that it holds.

    Raises:
        NotFound: There is none, or it is somebody else's: the answer is the same.
    """
    item = await rows.get(session, work_item_id)
    if item is None:
        raise NotFound(f"there is no work item {work_item_id}")
    return item


async def list_page(
    session: AsyncSession,
    principal: Principal,
    wanted: Filter = Filter(),
    cursor: str | None = None,
    limit: int = 50,
) -> tuple[list[WorkItemRow], str | None]:
    """Items that the principal's company sees, newest first, and the next cursor (None at the end).

    Raises:
        InvalidInput: The cursor or a filter's value is none that there is.
    """
    _check(wanted)
    size = paging.page_size(limit)
    return paging.cut(await rows.page(session, wanted, paging.after(cursor), size + 1), size)


async def files(
    session: AsyncSession, principal: Principal, work_item_id: UUID, direction: str | None = None
) -> list[WorkItemFileRow]:
    """The item's files (`in`, `out`, or both). Raises `NotFound` as `read` does."""
    await read(session, principal, work_item_id)
    return await rows.files(session, work_item_id, direction)


async def latest_assessment(
    session: AsyncSession, principal: Principal, work_item_id: UUID
) -> RiskAssessmentRow | None:
    """The item's assessment, once there is one."""
    return await rows.latest_assessment(session, work_item_id)


async def latest_run(session: AsyncSession, principal: Principal, work_item_id: UUID) -> RunRow | None:
    """The item's run, once there is one."""
    return await rows.latest_run(session, work_item_id)


async def timeline(
    session: AsyncSession, principal: Principal, work_item_id: UUID, after_seq: int = 0, limit: int = 200
) -> list[AuditView]:
    """What happened to the item, in order: its audit events after `after_seq`."""
    item = await read(session, principal, work_item_id)
    found = await audit_rows.of_work_item(session, item.tenant_id, item.id, after_seq, paging.page_size(limit))
    return [AuditView.model_validate(row, from_attributes=True) for row in found]


@asynccontextmanager
async def acting_on(db: Database, principal: Principal, work_item_id: UUID) -> AsyncGenerator[AsyncSession]:
    """A transaction in the item's own tenant, for one who may act there: its people, or its holding's.

    Raises:
        NotFound: The principal's company does not see the item.
    """
    async with db.session_for(principal) as session:
        tenant_id = (await read(session, principal, work_item_id)).tenant_id
    async with tenants.acting_in(db, principal, tenant_id) as session:
        yield session


async def request_cancel(
    session: AsyncSession, principal: Principal, work_item_id: UUID, reason: str = ""
) -> WorkItemRow:
    """Ask that the item ends, at any point of its life. The first request stays; repeats change nothing.

    The item's own tenant must be bound (`acting_on`). An open run is told at once, by row and outbox; the workflow
    is told to look again and closes the item.

    Raises:
        NotFound: Not an item of the bound tenant.
        Forbidden: Only the requester, the assistant's owner, a tenant admin or a holding admin cancels.
        Conflict: The item is final already.
    """
    item = await lifecycle.lock_work_item(session, work_item_id)
    await _may_cancel(session, principal, item)
    if item.cancel_requested_at is None and WorkItemStatus(item.status).is_final:
        raise Conflict(f"the work item is {item.status} already", status_now=item.status)
    await _write_cancel(session, principal, item, reason)
    return item


async def note_cancel(session: AsyncSession, principal: Principal, work_item_id: UUID, reason: str) -> WorkItemRow:
    """Write down a cancellation that was asked of the workflow engine: the same path, and nothing for a final item.

    Raises:
        NotFound: Not an item of the bound tenant.
    """
    item = await lifecycle.lock_work_item(session, work_item_id)
    if not WorkItemStatus(item.status).is_final:
        await _write_cancel(session, principal, item, reason)
    return item


async def _write_cancel(session: AsyncSession, principal: Principal, item: WorkItemRow, reason: str) -> None:
    if item.cancel_requested_at is not None:
        return
    item.cancel_requested_at = await tenant_rows.database_now(session)
    item.cancel_reason = reason
    item.updated_at = item.cancel_requested_at
    session.add(item)
    audit.record(
        session,
        principal,
        kind="work_item.cancel_requested",
        subject=f"work_item/{item.id}",
        summary=f"{principal.display_name or principal.subject} asked to cancel “{item.title}”",
        work_item_id=item.id,
        data={"reason": reason},
    )
    run = await rows.lock_open_run(session, item.id)
    if run is not None:
        lifecycle.kill_run(session, principal, run, "cancelled")
    enqueue(session, item.tenant_id, OutboxKind.SIGNAL_WORK_ITEM, {"work_item_id": str(item.id)})
    await session.flush()


async def view(session: AsyncSession, work_item_id: UUID) -> WorkItemSummary:
    """What a workflow needs to know of an item; also what the Web UI shows.

    Raises:
        NotFound: The session sees no such item.
    """
    item = await rows.get(session, work_item_id)
    if item is None:
        raise NotFound(f"there is no work item {work_item_id}")
    assistant, requester = await rows.people_of(session, item)
    assessment = await rows.latest_assessment(session, item.id)
    run = await rows.latest_run(session, item.id)
    level = RiskLevel(item.risk_level) if item.risk_level else None
    waits = level is not None and level.needs_approval and not await rows.has_approval(session, item)
    return WorkItemSummary(
        status=WorkItemStatus(item.status),
        title=item.title,
        assistant=assistant.slug,
        requester=requester.display_name or requester.username,
        level=level,
        score=item.risk_score,
        factors=tuple(factor["words"] for factor in assessment.factors) if assessment else (),
        worst_case=format_usd(item.worst_case_nano),
        cost="" if item.cost_nano is None else format_usd(item.cost_nano),
        needs_approval=waits,
        cancel_requested=item.cancel_requested_at is not None,
        held=await active_halt(session, item.tenant_id, item.assistant_id) is not None,
        restartable=assistant.restartable,
        run_id=run.id if run else None,
        attempt=run.attempt if run else 0,
        suspended=run is not None and run.status == RunStatus.QUEUED and run.waiting == Waiting.SUSPENDED,
        reason=item.reason,
        staged=await staged.open_members(session, item, run),
    )


async def _may_cancel(session: AsyncSession, principal: Principal, item: WorkItemRow) -> None:
    own = principal.tenant_id == item.tenant_id
    if own and (principal.id == item.requester_id or Role.TENANT_ADMIN in principal.roles):
        return
    # A foreign principal is here only through `acting_in`, which has verified the holding.
    if Role.HOLDING_ADMIN in principal.roles and principal.is_holding:
        return
    assistant = await assistant_rows.get(session, item.assistant_id)
    if own and assistant is not None and assistant.owner_id == principal.id:
        return
    raise Forbidden("only the requester, the assistant's owner or an admin cancels a work item")


def _check(wanted: Filter) -> None:
    for where, value, known in (
        ("status", wanted.status, {status.value for status in WorkItemStatus}),
        ("level", wanted.level, {level.value for level in RiskLevel}),
        ("awaiting", wanted.awaiting, set(rows.AWAITING)),
    ):
        if value is not None and value not in known:
            what = f"is one of {', '.join(sorted(known))}"
            raise InvalidInput(f"{where}: {what}", errors=[{"where": where, "what": what}])
