"""Reconciliation: what is open in PostgreSQL is compared with Temporal by `describe`, and what differs is mended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar
from uuid import UUID

import structlog
from temporalio import activity

from activities.model_calls import with_models_closed
from activities.signatures import ReconcileInput, ReconcileOutput
from models.domain.principal import Principal, service_principal
from models.domain.work_item import WorkItemStatus
from models.repositories import effects, llm_ledger, reservations
from models.repositories import reconciliation as rows
from models.repositories.effects import FoundEffect
from models.repositories.reconciliation import Found
from models.services import approvals, money
from models.services.llm_closing import ModelCloser
from models.services.llm_openings import ModelCallsOpen
from models.services.reconciliation import Settled, settle_without_workflow
from models.storage.db import Database

log = structlog.get_logger("reconcile")
Row = TypeVar("Row", Found, FoundEffect)

MISSING, RUNNING = "missing", "running"
FORGOTTEN_AT_ONCE = 1000
"""A pass, so a minute: more than an installation of one machine writes, and short enough to hold nobody up."""


class WorkflowEyes(Protocol):
    """What reconciliation asks of the workflow engine (`workflows.client.WorkflowGateway`)."""

    async def describe_work_item(self, tenant_id: UUID, work_item_id: UUID) -> str:
        """`missing`, `running`, or how it has closed."""
        ...

    async def describe_approval(self, approval_id: UUID) -> str:
        """The same for an approval."""
        ...

    async def describe_effect(self, tenant_id: UUID, action_id: UUID) -> str:
        """The same for an effect."""
        ...

    async def start_effect(self, tenant_id: UUID, action_id: UUID) -> bool:
        """Start the effect's workflow: what is done already, PostgreSQL gives no leave for."""
        ...

    async def start_work_item(self, tenant_id: UUID, work_item_id: UUID, summary: str = "") -> bool:
        """Start the item's workflow."""
        ...

    async def start_approval(self, tenant_id: UUID, work_item_id: UUID | None, approval_id: UUID) -> bool:
        """Start the approval's."""
        ...

    async def cancel_work_item(self, tenant_id: UUID, work_item_id: UUID) -> bool:
        """Ask an open workflow to close."""
        ...


class Reconciliation:
    """Finds with the system role, acts inside each tenant."""

    def __init__(self, app: Database, system: Database, eyes: WorkflowEyes, closer: ModelCloser | None = None) -> None:
        self._app = app
        self._system = system
        self._eyes = eyes
        self._closer = closer or ModelCloser(app, None)

    @activity.defn(name="reconcile_work_items")
    async def reconcile_work_items(self, given: ReconcileInput) -> ReconcileOutput:
        """Compare a page of open items; with the first page, also the items that ended lately."""
        page = await rows.work_items(self._system, given.after, given.limit)
        lately = await rows.ended_lately(self._system, given.limit) if given.after is None else []
        return _output(page, given, await _count([*page, *lately], self._work_item))

    @activity.defn(name="reconcile_approvals")
    async def reconcile_approvals(self, given: ReconcileInput) -> ReconcileOutput:
        """Close the approvals of ended items, expire what is over, give time back to the rest."""
        page = await rows.approvals(self._system, given.after, given.limit)
        return _output(page, given, await _count(page, self._approval))

    @activity.defn(name="reconcile_effects")
    async def reconcile_effects(self, given: ReconcileInput) -> ReconcileOutput:
        """Begin the effects anew that are to be performed and have no workflow: it mints nothing for what is done."""
        page = await effects.open_effects(self._system, given.after, given.limit)
        return _output(page, given, await _count(page, self._effect))

    @activity.defn(name="reconcile_money")
    async def reconcile_money(self, given: ReconcileInput) -> ReconcileOutput:
        """Free holds whose work has ended; make the trail's partitions ahead; forget what was carried long ago."""
        released = 0
        for tenant_id in await rows.tenants_with_leaked_holds(self._system):
            released += await self._free_leaked(tenant_id, given.limit)
        for tenant_id, work_item_id in await llm_ledger.left_open(self._system, given.limit):
            await self._close_models(tenant_id, work_item_id)
        await rows.make_audit_partitions(self._system)
        await rows.forget_old_records(self._system, FORGOTTEN_AT_ONCE)
        return ReconcileOutput(seen=released, released=released)

    async def _free_leaked(self, tenant_id: UUID, limit: int) -> int:
        """Each hold in a transaction of its own: the budgets of one are not kept while the next item is waited for."""
        principal = service_principal("reconcile", tenant_id)
        async with self._app.session_for(principal) as session:
            found = await reservations.leaked(session, tenant_id, limit)
        for work_item_id in found:
            await with_models_closed(
                self._closer, tenant_id, work_item_id, partial(self._release, principal, work_item_id)
            )
        return len(found)

    async def _release(self, principal: Principal, work_item_id: UUID) -> None:
        async with self._app.session_for(principal) as session:
            await money.release(session, principal, work_item_id)

    async def _close_models(self, tenant_id: UUID, work_item_id: UUID) -> None:
        """What ended without closing them: by itself, so that one that waits is not in the way of the others."""
        try:
            await self._closer.close(tenant_id, work_item_id)
        except ModelCallsOpen as error:
            log.info("models_not_closed", id=str(work_item_id), why=error.detail)

    async def _work_item(self, found: Found) -> str:
        state = await self._eyes.describe_work_item(found.tenant_id, found.id)
        if found.is_final:
            if state != RUNNING:
                return "seen"
            await self._eyes.cancel_work_item(found.tenant_id, found.id)
            return "cancelled"
        if state == RUNNING:
            return "seen"
        if state == MISSING:
            return "started" if await self._eyes.start_work_item(found.tenant_id, found.id) else "seen"
        done = await with_models_closed(
            self._closer, found.tenant_id, found.id, partial(self._settle, found.tenant_id, found.id, state)
        )
        return "seen" if done is Settled.NOTHING else "settled"

    async def _settle(self, tenant_id: UUID, work_item_id: UUID, state: str) -> Settled:
        principal = service_principal("reconcile", tenant_id)
        async with self._app.session_for(principal) as session:
            return await settle_without_workflow(session, principal, work_item_id, state)

    async def _effect(self, found: FoundEffect) -> str:
        if await self._eyes.describe_effect(found.tenant_id, found.id) == RUNNING:
            return "seen"
        return "started" if await self._eyes.start_effect(found.tenant_id, found.id) else "seen"

    async def _approval(self, found: Found) -> str:
        principal = service_principal("reconcile", found.tenant_id)
        async with self._app.session_for(principal) as session:
            if found.is_final:
                await approvals.cancel(session, principal, found.id, f"what it was about is {found.status}")
                return "settled"
            row = await approvals.expire(session, principal, found.id)
            if row.ended_at is not None:
                return "settled"
        if found.status != WorkItemStatus.AWAITING_APPROVAL and not found.by_itself:
            return "seen"
        if await self._eyes.describe_approval(found.id) == RUNNING:
            return "seen"
        started = await self._eyes.start_approval(found.tenant_id, found.work_item_id, found.id)
        return "started" if started else "seen"


async def _count(page: list[Row], mend: Callable[[Row], Awaitable[str]]) -> dict[str, int]:
    """Mend each row by itself, so that one that fails is not in the way of the others."""
    counts: dict[str, int] = {}
    for found in page:
        try:
            what = await mend(found)
        except Exception as error:
            log.warning("not_reconciled", id=str(found.id), why=str(error)[:200])
            what = "failed"
        counts[what] = counts.get(what, 0) + 1
    return counts


def _output(page: list[Row], given: ReconcileInput, counts: dict[str, int]) -> ReconcileOutput:
    return ReconcileOutput(
        seen=sum(counts.values()),
        started=counts.get("started", 0),
        settled=counts.get("settled", 0),
        cancelled=counts.get("cancelled", 0),
        failed=counts.get("failed", 0),
        next_after=page[-1].id if len(page) == given.limit else None,
    )
