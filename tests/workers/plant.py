"""The control plane in one process: real Temporal, PostgreSQL and Valkey, brokers, relay, control worker, runtimes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from temporalio.client import Client

from models.domain.principal import Principal
from models.services import enrolment, work_items
from models.services.dispatch import Dispatcher
from models.settings import Settings
from models.storage.blobs import BlobStore
from models.storage.cache import Cache
from models.storage.db import Database
from models.tables.work import WorkItemRow
from sandbox.runner import Runner
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase, free_port
from tests.fixtures.runs import SIGNER
from tests.fixtures.valkey import ValkeyServer
from tests.sandbox.link_world import Runtime, start_runtime
from workers.broker import serve
from workers.control import control_worker
from workers.relay import relay
from workflows.client import WorkflowGateway


@dataclass
class RunningBroker:
    """A broker that can be told to stop, or be killed: then nothing of it is tidied up."""

    url: str
    stop: asyncio.Event
    task: asyncio.Task[None]


@dataclass
class Plant:
    """What a test needs of the installation."""

    base: Path
    client: Client
    database: TestDatabase
    valkey: ValkeyServer
    db: Database
    system: Database
    blobs: BlobStore
    cache: Cache
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list[asyncio.Task[Any]])
    brokers: list[RunningBroker] = field(default_factory=list[RunningBroker])
    runtimes: list[Runtime] = field(default_factory=list[Runtime])

    def settings(self, port: int) -> Settings:
        host = self.client.service_client.config.target_host
        return Settings.model_validate(
            {
                "data": self.base,
                "database_app_url": self.database.app_url,
                "redis_url": self.valkey.url,
                "redis_tenant_key": "tenant-key",
                "temporal_address": host,
                "warrant_public_jwks": SIGNER.public_jwks(),
                "broker_port": port,
                "broker_id": f"broker-{port}",
                "allow_null_runner": True,
            }
        )

    async def start(self, *, control: bool = True) -> None:
        dispatcher = Dispatcher(self.db, self.system, WorkflowGateway(self.client), self.cache)
        self.tasks.append(asyncio.create_task(relay(self.system, dispatcher, self.stop)))
        if not control:
            return
        self.tasks.append(asyncio.create_task(control_worker(self.client, self.db, self.system, SIGNER).run()))

    async def broker(self, port: int = 0) -> RunningBroker:
        port = port or free_port()
        stop = asyncio.Event()
        task = asyncio.create_task(serve(self.settings(port), stop))
        broker = RunningBroker(f"http://127.0.0.1:{port}", stop, task)
        self.brokers.append(broker)
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    assert not task.done() or task.result() is None
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    return broker

    async def runtime(self, company: Company, broker: RunningBroker, runner: Runner, **options: Any) -> Runtime:
        async with self.db.session_for(company.admin) as session:
            token = await enrolment.create_token(session, company.admin)
        folder = self.base / f"runtime-{len(self.runtimes)}"
        folder.mkdir(parents=True)
        runtime = await start_runtime(cast("Any", broker), runner, folder, token=token, **options)
        self.runtimes.append(runtime)
        return runtime

    async def status(self, principal: Principal, item_id: UUID) -> WorkItemRow:
        async with self.db.session_for(principal) as session:
            return await work_items.read(session, principal, item_id)

    async def until(
        self, principal: Principal, item_id: UUID, wanted: Callable[[WorkItemRow], bool], seconds: float = 60
    ) -> WorkItemRow:
        item = await self.status(principal, item_id)
        try:
            async with asyncio.timeout(seconds):
                while not wanted(item):
                    await asyncio.sleep(0.1)
                    item = await self.status(principal, item_id)
        except TimeoutError:
            raise AssertionError(f"the item is {item.status} ({item.reason})") from None
        return item

    async def close(self) -> None:
        for runtime in self.runtimes:
            await runtime.stop()
        for broker in self.brokers:
            broker.stop.set()
        await asyncio.gather(*(broker.task for broker in self.brokers), return_exceptions=True)
        self.stop.set()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
