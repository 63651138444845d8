"""The relay: carries the outbox to Temporal and Redis, at least once. ``python -m workers.relay``.

Any number of relays may run. An entry is taken for a while (`SKIP LOCKED`), carried, and marked done; one that a
relay died over becomes due again, and one that fails waits ever longer without holding up the others.
"""

from __future__ import annotations

import asyncio

import structlog

from models.repositories import dispatch as rows
from models.repositories.dispatch import Entry
from models.services.dispatch import Dispatcher
from models.settings import Settings
from models.storage.cache import Cache
from models.storage.db import Database
from workers.process import pause, set_up_logging, stop_event, wait_for
from workflows.client import WorkflowGateway, connect

BATCH = 50
AT_ONCE = 16
POLL_SECONDS = 0.25
"""The fast path after a commit has mostly been there before; this bounds how late the rest is."""
DISPATCH_SECONDS = 10
"""Shorter than the time an entry is taken for, so that no other relay carries it meanwhile."""

log = structlog.get_logger("relay")


async def relay(system: Database, dispatcher: Dispatcher, stop: asyncio.Event) -> None:
    """Carry entries until told to stop; a database that is away is waited for."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def carry(entry: Entry) -> None:
        async with gate:
            await carry_one(system, dispatcher, entry)

    while not stop.is_set():
        try:
            entries = await rows.take_due(system, BATCH)
            await asyncio.gather(*(carry(entry) for entry in entries))
        except Exception as error:
            log.warning("outbox_away", why=str(error)[:200])
            await pause(stop, 1.0)
            continue
        if not entries:
            await pause(stop, POLL_SECONDS)


async def carry_one(system: Database, dispatcher: Dispatcher, entry: Entry) -> None:
    """Carry one entry and mark it; what fails is put back with its reason."""
    try:
        async with asyncio.timeout(DISPATCH_SECONDS):
            await dispatcher.dispatch(entry)
    except Exception as error:
        why = str(error) or type(error).__name__
        log.warning("not_delivered", kind=entry.kind, id=str(entry.id), attempts=entry.attempts, why=why[:200])
        await rows.put_back(system, entry, why)
    else:
        await rows.mark_done(system, entry)


async def main() -> None:
    """Compose the relay and run it until the process is told to end."""
    settings = Settings()
    set_up_logging(settings.log_level)
    stop = stop_event()
    app = Database(settings.secret("database_app_url"), pool_size=4)
    system = Database(settings.secret("database_system_url"), pool_size=AT_ONCE + 2)
    cache = Cache(settings.secret("redis_url"), settings.secret("redis_tenant_key"))
    await wait_for("PostgreSQL", system.ping)
    client = await connect(
        settings.temporal_address,
        settings.temporal_namespace,
        waiting=lambda why: log.warning("waiting", dependency="Temporal", why=why),
    )
    log.info("relay_started")
    try:
        await relay(system, Dispatcher(app, system, WorkflowGateway(client), cache), stop)
    finally:
        await cache.close()
        await system.close()
        await app.close()


if __name__ == "__main__":
    asyncio.run(main())
