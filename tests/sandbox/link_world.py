"""A broker's hub and runtimes over real sockets, with a control plane in a dictionary."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from aiohttp import web
from joserfc import jws
from joserfc.jwk import KeySet, OKPKey

from sandbox.agent_upstreams import Upstreams
from sandbox.identity import Identity
from sandbox.keeper import RunKeeper
from sandbox.link.app import create_link_app
from sandbox.link.backend import ConnectedRuntime, KillOrder, LinkRefusedError
from sandbox.link.blob_client import BlobClient
from sandbox.link.client import RuntimeLink
from sandbox.link.enrolment import identity_of
from sandbox.link.hub import LinkTimes, RuntimeHub
from sandbox.link.lease import Clock, Leases, boot_clock
from sandbox.link.messages import EnrolResponse, LogRecord, Placed, RunRef, Used
from sandbox.placement_store import PlacementStore
from sandbox.runner import Runner
from sandbox.spec import RunResult, RunSpec, spec_digest

TIMES = LinkTimes(lease_seconds=60, heartbeat_seconds=0.2)


async def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (what is awaited is in another process, or has no event)
            await asyncio.sleep(0.01)


class MemoryBackend:
    """The control plane, in a dictionary."""

    def __init__(self) -> None:
        self.tokens: dict[str, UUID] = {}
        self.keys: dict[tuple[UUID, UUID], bytes] = {}
        self.refused: list[tuple[UUID, UUID, str]] = []
        self.hellos: list[Sequence[RunRef]] = []
        self.started: dict[RunRef, str] = {}
        self.output: dict[RunRef, bytearray] = {}
        self.ended: dict[RunRef, list[RunResult]] = {}
        self.used: list[Used] = []
        self.blobs: dict[str, bytes] = {}
        self.orders: list[KillOrder] = []
        self.storing = asyncio.Event()
        self.storing.set()

    async def enrol(self, token: str, name: str, public_key: bytes) -> EnrolResponse:
        tenant_id = self.tokens.pop(token, None)
        if tenant_id is None:
            raise LinkRefusedError("unknown token")
        names = EnrolResponse(runtime_id=uuid4(), tenant_id=tenant_id)
        self.keys[names.runtime_id, tenant_id] = public_key
        return names

    async def public_key(self, runtime_id: UUID, tenant_id: UUID) -> bytes | None:
        return self.keys.get((runtime_id, tenant_id))

    async def on_refused(self, runtime_id: UUID, tenant_id: UUID, reason: str) -> None:
        self.refused.append((runtime_id, tenant_id, reason))

    async def on_hello(self, runtime: ConnectedRuntime, live: Sequence[RunRef]) -> Sequence[KillOrder]:
        self.hellos.append(live)
        return [order for order in self.orders if order.run in live]

    async def on_heartbeat(self, runtime: ConnectedRuntime, live: Sequence[RunRef]) -> None: ...

    async def on_gone(self, runtime: ConnectedRuntime) -> None: ...

    async def on_placed(self, runtime: ConnectedRuntime, placed: Placed) -> None: ...

    async def on_started(self, runtime: ConnectedRuntime, run: RunRef, container_id: str) -> None:
        self.started[run] = container_id

    async def on_log(self, runtime: ConnectedRuntime, run: RunRef, records: Sequence[LogRecord]) -> int:
        await self.storing.wait()
        kept = self.output.setdefault(run, bytearray())
        for record in records:
            assert record.offset <= len(kept), "a gap in the log"
            kept += record.data[len(kept) - record.offset :]
        return len(kept)

    async def on_used(self, runtime: ConnectedRuntime, used: Used) -> None:
        self.used.append(used)

    async def on_ended(self, runtime: ConnectedRuntime, run: RunRef, result: RunResult) -> None:
        self.ended.setdefault(run, []).append(result)

    async def open_blob(self, runtime: ConnectedRuntime, sha256: str) -> AsyncIterator[bytes] | None:
        content = self.blobs.get(sha256)
        return None if content is None else _chunks(content)

    async def store_blob(self, runtime: ConnectedRuntime, sha256: str, chunks: AsyncIterator[bytes]) -> None:
        self.blobs[sha256] = b"".join([chunk async for chunk in chunks])

    def keep(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return digest


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    yield content


@dataclass
class Broker:
    """A hub on a port of its own; ``renewing`` is the broker's lease loop."""

    backend: MemoryBackend
    hub: RuntimeHub
    port: int
    runner: web.AppRunner
    key: OKPKey
    tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def renew(self) -> None:
        for heard in self.hub.take_heard():
            await self.hub.send_renewed(heard, set(heard.runs))

    def warrant(self, spec: RunSpec, attempt: int = 1, *, key: OKPKey | None = None, **changes: Any) -> str:
        claims = {
            "iss": "awgp",
            "aud": "run",
            "jti": str(uuid4()),
            "tenant": str(spec.tenant_id),
            "assistant": str(spec.assistant_id),
            "work_item": str(spec.work_item_id),
            "run": str(spec.run_id),
            "attempt": attempt,
            "spec_digest": spec_digest(spec),
            "image": spec.image,
            "claim_before": time.time() + 60,
            "max_seconds": 86400,
        } | changes
        # Ed25519 is what RFC 9864 calls it; the old name EdDSA is verified as well.
        return jws.serialize_compact({"alg": "Ed25519"}, json.dumps(claims), key or self.key, algorithms=["Ed25519"])

    async def place(self, spec: RunSpec, attempt: int = 1, warrant: str | None = None) -> Placed:
        async with asyncio.timeout(20):
            permit = await self.hub.free_place(spec.tenant_id)
            return await self.hub.place(
                permit,
                run_id=spec.run_id,
                attempt=attempt,
                warrant=warrant or self.warrant(spec, attempt),
                spec=spec,
            )

    async def stop(self) -> None:
        await self.hub.close()
        await self.runner.cleanup()


async def start_broker(backend: MemoryBackend, key: OKPKey, port: int = 0, times: LinkTimes = TIMES) -> Broker:
    jwks = json.dumps(KeySet([key]).as_dict(private=False))
    hub = RuntimeHub(backend, jwks, times)
    runner = web.AppRunner(create_link_app(hub), shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
    await site.start()
    return Broker(backend, hub, runner.addresses[0][1], runner, key)


@dataclass
class Runtime:
    """A runtime in this process; ``stop`` is what a killed one looks like to its sandboxes."""

    keeper: RunKeeper
    task: asyncio.Task[None]
    identity: Identity

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.keeper.detach()
        for course in self.keeper.courses.values():
            course.close()
        self.keeper.courses.clear()


async def start_runtime(
    broker: Broker,
    runner: Runner,
    base: Path,
    *,
    token: str | None,
    clock: Clock = boot_clock,
    capacity: int = 4,
    upstreams: Upstreams | None = None,
) -> Runtime:
    identity = await identity_of(base, broker.url, "test", token)
    blobs = BlobClient(broker.url)
    keeper = RunKeeper(
        runner,
        PlacementStore(base, base / "mounts"),
        blobs,
        Leases(clock),
        tenant_id=identity.names.tenant_id,
        capacity=capacity,
        upstreams=upstreams,
    )
    await keeper.resume()
    link = RuntimeLink(broker.url, identity, keeper, blobs, await runner.facts())
    return Runtime(keeper, asyncio.create_task(link.run()), identity)


def new_key() -> OKPKey:
    return OKPKey.generate_key("Ed25519", {"kid": "w1"})


def enrolment(backend: MemoryBackend, tenant_id: UUID) -> str:
    token = base64.urlsafe_b64encode(uuid4().bytes + uuid4().bytes).decode()
    backend.tokens[token] = tenant_id
    return token


@contextlib.asynccontextmanager
async def link_world(runner: Runner, base: Path, **options: Any) -> AsyncGenerator[tuple[Broker, Runtime]]:
    """One broker and one connected runtime of a new tenant."""
    backend = MemoryBackend()
    broker = await start_broker(backend, new_key())
    runtime = await start_runtime(broker, runner, base, token=enrolment(backend, uuid4()), **options)
    try:
        yield broker, runtime
    finally:
        await runtime.stop()
        await broker.stop()
