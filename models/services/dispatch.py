"""What the relay does with each kind of outbox entry. Each may be repeated: the receivers are idempotent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol
from uuid import UUID

from models.domain.principal import service_principal
from models.repositories import dispatch as rows
from models.repositories import effects as effect_rows
from models.repositories.dispatch import Entry
from models.services import halt
from models.services.halt import HaltMode, HaltScope
from models.services.outbox import OutboxKind
from models.storage.cache import Cache
from models.storage.db import Database

SIGNALS_AT_ONCE = 32


class WorkflowTeller(Protocol):
    """What the relay asks of the workflow engine (`workflows.client.WorkflowGateway`)."""

    async def start_work_item(self, tenant_id: UUID, work_item_id: UUID, summary: str = "") -> bool:
        """Start the item's workflow; False when it was started before."""
        ...

    async def signal_work_item(self, tenant_id: UUID, work_item_id: UUID) -> bool:
        """Tell it to look again; False when there is none."""
        ...

    async def signal_approval(self, approval_id: UUID) -> bool:
        """The same for an approval."""
        ...

    async def start_approval(self, tenant_id: UUID, work_item_id: UUID | None, approval_id: UUID) -> bool:
        """Start the workflow of an approval that no work item's workflow starts."""
        ...

    async def start_effect(self, tenant_id: UUID, action_id: UUID) -> bool:
        """Start performing an action's effect."""
        ...

    async def signal_effect(self, tenant_id: UUID, action_id: UUID) -> bool:
        """Tell it to look again; False when there is none."""
        ...

    async def start_delivery(self, tenant_id: UUID, outbox_id: UUID) -> bool:
        """Start the delivery of an entry."""
        ...


def loads(entries: Sequence[Entry]) -> list[list[Entry]]:
    """What is carried in one go: each entry by itself, but changes of budgets together.

    Every end of work frees money, and each says so; whoever waits needs to hear it once. A load's first entry stands
    for all of it: a change of everything's budget for those of all tenants, a tenant's for its own.
    """
    changes = [entry for entry in entries if entry.kind == OutboxKind.BUDGET_CHANGED]
    everything = [entry for entry in changes if entry.payload.get("everything")]
    found: dict[UUID, list[Entry]] = {}
    for entry in entries:
        if entry.kind != OutboxKind.BUDGET_CHANGED:
            found[entry.id] = [entry]
        elif not everything:
            found.setdefault(entry.tenant_id, []).append(entry)
    told = [[everything[0], *(entry for entry in changes if entry is not everything[0])]] if everything else []
    return [*found.values(), *told]


class Dispatcher:
    """Carries outbox entries to Temporal and Redis.

    Args:
        app: Acts inside the tenants that a holding's halt concerns.
        system: Finds what is to be woken.
        teller: The workflow engine.
        cache: Makes a kill quicker; the brokers poll the rows anyway.
    """

    def __init__(self, app: Database, system: Database, teller: WorkflowTeller, cache: Cache | None) -> None:
        self._app = app
        self._system = system
        self._teller = teller
        self._cache = cache

    async def dispatch(self, entry: Entry) -> None:
        """Carry one entry to its receiver; raises when it was not reached."""
        payload = entry.payload
        match OutboxKind(entry.kind):
            case OutboxKind.START_WORK_ITEM:
                await self._teller.start_work_item(entry.tenant_id, UUID(payload["work_item_id"]))
            case OutboxKind.SIGNAL_WORK_ITEM:
                await self._teller.signal_work_item(entry.tenant_id, UUID(payload["work_item_id"]))
            case OutboxKind.SIGNAL_APPROVAL:
                await self._teller.signal_approval(UUID(payload["approval_id"]))
            case OutboxKind.START_APPROVAL:
                item = payload.get("work_item_id")
                await self._teller.start_approval(
                    entry.tenant_id, UUID(item) if item else None, UUID(payload["approval_id"])
                )
            case OutboxKind.PERFORM_EFFECT:
                await self._teller.start_effect(entry.tenant_id, UUID(payload["action_id"]))
            case OutboxKind.WEBHOOK:
                await self._teller.start_delivery(entry.tenant_id, entry.id)
            case OutboxKind.KILL_RUN:
                if self._cache is not None:
                    await self._cache.publish(entry.tenant_id, "kills")
            case OutboxKind.BUDGET_CHANGED:
                tenant_id = None if payload.get("everything") else entry.tenant_id
                await self._signal(await rows.awaiting_budget(self._system, tenant_id))
            case OutboxKind.HALT_CHANGED:
                await self._halt_changed(HaltScope(payload["scope"]), payload["key"], payload)

    async def _halt_changed(self, scope: HaltScope, key: str, payload: dict[str, Any]) -> None:
        tenant_id = None if scope is HaltScope.EVERYTHING else UUID(key.partition("/")[0])
        assistant_id = UUID(key.partition("/")[2]) if scope is HaltScope.ASSISTANT else None
        items = await rows.open_items(self._system, tenant_id, assistant_id)
        if payload["active"] and payload["mode"] == HaltMode.KILL:
            for affected in sorted({owner for owner, _ in items}):
                principal = service_principal("relay", affected)
                async with self._app.session_for(principal) as session:
                    await halt.kill_runs(session, principal, scope, payload["epoch"], assistant_id)
        await self._signal(items)
        effects = await effect_rows.permitted_effects(self._system, tenant_id, assistant_id)
        await self._tell(self._teller.signal_effect, [(found.tenant_id, found.id) for found in effects])

    async def _signal(self, items: list[tuple[UUID, UUID]]) -> None:
        await self._tell(self._teller.signal_work_item, items)

    async def _tell(self, tell: Callable[[UUID, UUID], Awaitable[bool]], named: list[tuple[UUID, UUID]]) -> None:
        """Oldest first, some at once: thousands must be told within the time that an entry is carried for."""
        for start in range(0, len(named), SIGNALS_AT_ONCE):
            some = named[start : start + SIGNALS_AT_ONCE]
            await asyncio.gather(*(tell(*one) for one in some))
