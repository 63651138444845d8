"""What a broker does all the time: renew leases, and bring kills to the runtimes that it has."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID

import structlog

from models.domain.principal import service_principal
from models.domain.run import RENEW_SECONDS
from models.repositories import runs as rows
from models.rules.waiting import Waiting
from models.services import leases, runs, waiting
from models.services.run_backend import RunBackend
from models.storage.cache import Bell, Cache
from models.storage.db import Database
from sandbox.link.hub import Heard, RuntimeHub
from sandbox.link.messages import KillReason, RunRef
from workers.process import pause

KILL_POLL_SECONDS = 1.0
WAITING_POLL_SECONDS = 2.0
SAY_AGAIN_SECONDS = 5.0
"""A kill is said again until its run has ended."""

log = structlog.get_logger("broker")


async def renew_for_ever(
    db: Database, hub: RuntimeHub, backend: RunBackend, stop: asyncio.Event, every: float = RENEW_SECONDS
) -> None:
    """Renew the leases of what was heard, tenant by tenant, each in one statement."""
    while not stop.is_set():
        await pause(stop, every)
        by_tenant: defaultdict[UUID, list[Heard]] = defaultdict(list)
        for heard in hub.take_heard():
            by_tenant[heard.runtime.tenant_id].append(heard)
        for tenant_id, group in by_tenant.items():
            try:
                await renew_tenant(db, hub, backend, tenant_id, group)
            except Exception as error:
                # What is not renewed ends by itself; the next round renews what was heard by then.
                log.warning("leases_not_renewed", tenant_id=str(tenant_id), why=str(error)[:200])


async def renew_tenant(db: Database, hub: RuntimeHub, backend: RunBackend, tenant_id: UUID, group: list[Heard]) -> None:
    """Renew one tenant's leases and tell its runtimes; INVARIANT: in this order."""
    held = [(run, heard.runtime.runtime_id) for heard in group for run in heard.runs]
    async with db.tenant_session(tenant_id) as session:
        renewed = await leases.renew(session, held)
    for heard in group:
        await hub.send_renewed(heard, renewed)
        refused = [run for run in heard.runs if run not in renewed]
        if refused:
            for order in await backend.orders(heard.runtime, refused):
                await hub.kill(order.run.run_id, order.run.attempt, order.reason)


async def kill_for_ever(db: Database, hub: RuntimeHub, cache: Cache | None, tenant_id: UUID) -> None:
    """Bring a tenant's kills to the runtimes here: at a ring, and by looking each second."""
    said: dict[RunRef, float] = {}
    async with _bell(cache, tenant_id) as bell:
        while True:
            try:
                await kill_once(db, hub, tenant_id, said)
            except Exception as error:
                log.warning("kills_not_read", tenant_id=str(tenant_id), why=str(error)[:200])
            await bell.wait(KILL_POLL_SECONDS)


@asynccontextmanager
async def _bell(cache: Cache | None, tenant_id: UUID) -> AsyncGenerator[Bell]:
    if cache is None:
        yield Bell()
        return
    async with cache.listen(tenant_id, "kills") as bell:
        yield bell


async def kill_once(db: Database, hub: RuntimeHub, tenant_id: UUID, said: dict[RunRef, float]) -> None:
    """Read what must end and tell it; what only a cancel or a halt says is written on the run first."""
    async with db.tenant_session(tenant_id) as session:
        found = await rows.to_kill(session, tenant_id)
    for row in found:
        if row.kill_reason is None:
            principal = service_principal("broker", tenant_id)
            async with db.session_for(principal) as session:
                await runs.request_kill(session, principal, row.work_item_id, KillReason(row.reason))
    now = asyncio.get_running_loop().time()
    live = {RunRef(run_id=row.id, attempt=row.attempt): KillReason(row.reason) for row in found}
    for gone in said.keys() - live.keys():
        del said[gone]
    for run, reason in live.items():
        if now - said.get(run, -SAY_AGAIN_SECONDS) >= SAY_AGAIN_SECONDS and await hub.kill(
            run.run_id, run.attempt, reason
        ):
            said[run] = now


async def wait_for_ever(db: Database, hub: RuntimeHub, tenant_id: UUID, every: float = WAITING_POLL_SECONDS) -> None:
    """Pause, resume and suspend a tenant's runs here whose agents wait for people."""
    while True:
        try:
            await wait_once(db, hub, tenant_id)
        except Exception as error:
            log.warning("waiting_not_read", tenant_id=str(tenant_id), why=str(error)[:200])
        await asyncio.sleep(every)


async def wait_once(db: Database, hub: RuntimeHub, tenant_id: UUID) -> None:
    """Write how runs wait from now on, then tell their runtimes what the rows say, where they say otherwise."""
    async with db.tenant_session(tenant_id) as session:
        standing, changes = await waiting.due(session, tenant_id)
    principal = service_principal("broker", tenant_id)
    for work_item_id, run_id in changes:
        async with db.session_for(principal) as session:
            await waiting.step(session, principal, work_item_id, run_id)
    if changes:
        async with db.tenant_session(tenant_id) as session:
            standing, _ = await waiting.due(session, tenant_id)
    paused = hub.paused(tenant_id)
    for run, how in standing.items():
        if how is Waiting.SUSPENDED:
            await hub.suspend(run)
        elif run not in paused:
            await hub.pause(run)
    for run in paused - standing.keys():
        await hub.resume(run)
