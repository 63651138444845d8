"""The broker: the runtimes' endpoint, and the activities that place and follow runs. ``python -m workers.broker``.

Holds no truth: any number of brokers may run, a runtime may come back to any of them, and one that dies is not missed
by the runs that live.
"""

from __future__ import annotations

import asyncio
import os
import socket
from uuid import UUID

import structlog
from aiohttp import web
from temporalio.client import Client
from temporalio.worker import FixedSizeSlotSupplier, Worker, WorkerTuner

from activities.errors import DomainErrors
from activities.following import Following
from activities.placing import PlaceSlots, Placing
from api.runtime_link.app import create_app
from models.domain.run import HEARTBEAT_SECONDS, LEASE_SECONDS
from models.services.run_backend import RunBackend
from models.services.warrant_keys import JwksVerifier, WarrantVerifier
from models.settings import Settings
from models.storage.blobs import BlobStore
from models.storage.cache import Cache
from models.storage.db import Database
from sandbox.link.hub import LinkTimes, RuntimeHub
from workers.broker_loops import kill_for_ever, renew_for_ever, wait_for_ever
from workers.process import pause, set_up_logging, stop_event, wait_for
from workflows.client import connect
from workflows.options import BROKER_QUEUE, run_queue

MOST_FOLLOWED = 2000
"""Runs that one broker follows at once; each is a sleeping task."""
LOOK_SECONDS = 0.2
GRACEFUL_SECONDS = 5.0

log = structlog.get_logger("broker")


class PlacingWorkers:
    """One worker a tenant that has a runtime here: no queue is polled for a tenant that nobody can serve."""

    def __init__(
        self,
        client: Client,
        db: Database,
        hub: RuntimeHub,
        cache: Cache | None,
        verifier: WarrantVerifier,
        broker_id: str,
    ) -> None:
        self._client = client
        self._db = db
        self._hub = hub
        self._cache = cache
        self._verifier = verifier
        self._broker_id = broker_id
        self._tenants: dict[UUID, list[asyncio.Task[None]]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Start and end workers as runtimes come and go."""
        while not stop.is_set():
            here = {runtime.tenant_id for runtime in self._hub.connected()}
            for tenant_id in here - self._tenants.keys():
                log.info("serving", tenant_id=str(tenant_id))
                self._tenants[tenant_id] = [
                    asyncio.create_task(self._place(tenant_id)),
                    asyncio.create_task(kill_for_ever(self._db, self._hub, self._cache, tenant_id)),
                    asyncio.create_task(wait_for_ever(self._db, self._hub, tenant_id)),
                ]
            for tenant_id in self._tenants.keys() - here:
                log.info("not_serving", tenant_id=str(tenant_id))
                await self._end(tenant_id)
            await pause(stop, LOOK_SECONDS)
        for tenant_id in list(self._tenants):
            await self._end(tenant_id)

    async def _end(self, tenant_id: UUID) -> None:
        tasks = self._tenants.pop(tenant_id)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _place(self, tenant_id: UUID) -> None:
        slots = PlaceSlots(self._hub, tenant_id)
        placing = Placing(self._db, self._hub, slots, self._verifier, self._broker_id)
        worker = Worker(
            self._client,
            task_queue=run_queue(tenant_id),
            activities=[placing.place_run],
            tuner=WorkerTuner.create_composite(
                workflow_supplier=FixedSizeSlotSupplier(1),
                activity_supplier=slots,
                local_activity_supplier=FixedSizeSlotSupplier(1),
                nexus_supplier=FixedSizeSlotSupplier(1),
            ),
            interceptors=[DomainErrors()],
            max_concurrent_activity_task_polls=2,
        )
        await worker.run()


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Compose the broker and run it until told to stop."""
    broker_id = settings.broker_id or f"{socket.gethostname()}-{os.getpid()}"
    db = Database(settings.secret("database_app_url"), pool_size=settings.database_pool_size)
    cache = Cache(settings.secret("redis_url"), settings.secret("redis_tenant_key"))
    blobs = BlobStore(settings.blobs)
    if not settings.warrant_public_jwks:
        raise SystemExit("setting AWGP_WARRANT_PUBLIC_JWKS is missing: without it no warrant can be verified")
    if settings.allow_null_runner:
        log.warning("null_runner_allowed", means="runtimes that execute nothing may take work: development only")
    backend = RunBackend(db, blobs, cache, allow_null_runner=settings.allow_null_runner)
    times = LinkTimes(lease_seconds=LEASE_SECONDS, heartbeat_seconds=HEARTBEAT_SECONDS)
    hub = RuntimeHub(
        backend,
        settings.warrant_public_jwks,
        times,
        gateway_url=settings.agent_gateway_url,
        api_url=settings.agent_api_url or settings.api_url,
    )
    backend.acknowledge_by(hub.send_log_ack)
    await wait_for("PostgreSQL", db.ping)
    client = await connect(
        settings.temporal_address,
        settings.temporal_namespace,
        waiting=lambda why: log.warning("waiting", dependency="Temporal", why=why),
    )
    workers = PlacingWorkers(client, db, hub, cache, JwksVerifier(settings.warrant_public_jwks), broker_id)
    follower = Worker(
        client,
        task_queue=BROKER_QUEUE,
        activities=[Following(db, cache).follow_run],
        interceptors=[DomainErrors()],
        max_concurrent_activities=MOST_FOLLOWED,
    )
    app = create_app(hub, {"postgresql": db.ping, "redis": cache.ping, "blobs": blobs.ping})
    runner = web.AppRunner(app, shutdown_timeout=GRACEFUL_SECONDS)
    await runner.setup()
    await web.TCPSite(runner, settings.broker_host, settings.broker_port).start()
    log.info("broker_started", broker_id=broker_id, host=settings.broker_host, port=settings.broker_port)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(workers.run(stop))
            group.create_task(_until(stop, follower))
            group.create_task(renew_for_ever(db, hub, backend, stop))
    finally:
        await hub.close()
        await runner.cleanup()
        await cache.close()
        await db.close()


async def _until(stop: asyncio.Event, worker: Worker) -> None:
    async with worker:
        await stop.wait()


async def main() -> None:
    """Run the broker until the process is told to end."""
    settings = Settings()
    set_up_logging(settings.log_level)
    await serve(settings, stop_event())


if __name__ == "__main__":
    asyncio.run(main())
