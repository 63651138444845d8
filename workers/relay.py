"""The relay: carries the outbox to Temporal and Redis, at least once. ``python -m workers.relay``.

Any number of relays may run. An entry is taken for a while (`SKIP LOCKED`), carried, and marked done; one that a
relay died over becomes due again, and one that fails waits ever longer without holding up the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from models.repositories import dispatch as rows
from models.repositories.dispatch import Entry
from models.services.dispatch import Dispatcher, loads
from models.settings import Settings
from models.storage.cache import Cache
from models.storage.db import Database
from workers.process import pause, set_up_logging, stop_event, wait_for
from workflows.client import WorkflowGateway, connect

BATCH = 50
AT_ONCE = 16
POLL_SECONDS = 0.25
"""The fast path after a commit has mostly been there before; this bounds how late the rest is."""
CARRY_SECONDS = 10
"""For a whole batch, from before it is taken: what has not arrived then is put back, what was not begun is given back.
The rest of the time that it is taken for (15 s) is for writing that down; where that takes longer, another relay may
carry an entry once more, which its receiver bears.
"""

log = structlog.get_logger("relay")


async def relay(system: Database, dispatcher: Dispatcher, stop: asyncio.Event) -> None:
    """Carry entries until told to stop; a database that is away is waited for."""
    while not stop.is_set():
        try:
            until = asyncio.get_running_loop().time() + CARRY_SECONDS
            entries = await rows.take_due(system, BATCH)
            await carry_all(system, dispatcher, entries, until)
        except Exception as error:
            log.warning("outbox_away", why=str(error)[:200])
            await pause(stop, 1.0)
            continue
        if not entries:
            await pause(stop, POLL_SECONDS)


async def carry_all(system: Database, dispatcher: Dispatcher, entries: Sequence[Entry], until: float) -> None:
    """Carry a batch, some at once; what the loop's clock passes `until` for before it is begun is given back."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def carry(load: Sequence[Entry]) -> None:
        async with gate:
            if asyncio.get_running_loop().time() >= until:
                await rows.give_back(system, load)
            else:
                await carry_one(system, dispatcher, load, until)

    await asyncio.gather(*(carry(load) for load in loads(entries)))


async def carry_one(system: Database, dispatcher: Dispatcher, load: Sequence[Entry], until: float) -> None:
    """Carry the first entry of a load, which stands for all, and mark them; what fails is put back with its reason."""
    entry = load[0]
    try:
        async with asyncio.timeout_at(until):
            await dispatcher.dispatch(entry)
    except Exception as error:
        why = str(error) or type(error).__name__
        log.warning("not_delivered", kind=entry.kind, id=str(entry.id), attempts=entry.attempts, why=why[:200])
        await rows.put_back(system, load, why)
    else:
        await rows.mark_done(system, load)


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
