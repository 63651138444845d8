"""Redis (Valkey): tails, pub/sub. All of it can be lost at any moment: each reader polls PostgreSQL behind it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

log = structlog.get_logger("cache")

TENANT_RULES = (
    "+@all", "-@admin", "-@dangerous", "-client|tracking", "-function", "-scan", "-randomkey", "-dbsize", "-script",
    "-pubsub",
)  # fmt: skip
"""What a tenant's user may call, on its own keys and channels: measured to hold, Lua included."""
TAIL_RECORDS = 1000
TAIL_SECONDS = 24 * 3600
TIMEOUT_SECONDS = 1.0
AWAY_SECONDS = 2.0
"""After a failure Redis is left alone for so long: what is only quicker with it must not be slower without it."""

_FAILURES = (RedisError, OSError, TimeoutError)


@dataclass(frozen=True)
class TailRecord:
    """One record of a log's tail."""

    id: str
    attempt: int
    offset: int
    stream: str
    at: str
    data: bytes


class Bell:
    """Rung by `Cache.publish` on a channel; its holder looks for itself, and must also look without a ring."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake the holder, now or at its next `wait`."""
        self._rung.set()

    async def wait(self, timeout: float) -> bool:
        """Wait for a ring, at most `timeout` seconds; whether it rang. With Redis away it just waits."""
        try:
            async with asyncio.timeout(timeout):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True


class _Tenant:
    """One tenant's own user: its connections, and one subscription that serves all its bells here."""

    def __init__(self, client: Redis, prefix: str) -> None:
        self.client = client
        self.prefix = prefix
        self.bells: dict[str, set[Bell]] = {}
        self.listener: asyncio.Task[None] | None = None


class Cache:
    """Connections made for a tenant use its own ACL user (`~t:<tenant>:*`, `&t:<tenant>:*`).

    Args:
        url: Of the control plane's own user, which may make the tenants' users.
        tenant_key: HMAC key from which their passwords come.
    """

    def __init__(self, url: str, tenant_key: str) -> None:
        self._url = url
        self._tenant_key = tenant_key
        self._admin = self._connect(connections=4)
        self._tenants: dict[UUID, _Tenant] = {}
        self._making = asyncio.Lock()
        self._away_until = 0.0

    def _connect(self, *, connections: int, **user: Any) -> Redis:
        pool = BlockingConnectionPool.from_url(
            self._url,
            max_connections=connections,
            timeout=TIMEOUT_SECONDS,
            socket_timeout=TIMEOUT_SECONDS * 5,
            socket_connect_timeout=TIMEOUT_SECONDS,
        )
        # The URL names the control plane's user; it gives way to the tenant's.
        pool.connection_kwargs.update(user)
        return Redis.from_pool(pool)

    def user_of(self, tenant_id: UUID) -> tuple[str, str]:
        """Name and password of a tenant's user."""
        digest = hmac.new(self._tenant_key.encode(), str(tenant_id).encode(), hashlib.sha256)
        return f"t-{tenant_id}", digest.hexdigest()

    async def _tenant(self, tenant_id: UUID) -> _Tenant:
        async with self._making:
            found = self._tenants.get(tenant_id)
            if found is not None:
                return found
            await self._make_user(tenant_id)
            name, password = self.user_of(tenant_id)
            client = self._connect(connections=8, username=name, password=password)
            self._tenants[tenant_id] = _Tenant(client, f"t:{tenant_id}:")
            return self._tenants[tenant_id]

    async def _make_user(self, tenant_id: UUID) -> None:
        name, password = self.user_of(tenant_id)
        prefix = f"t:{tenant_id}:"
        await self._admin.execute_command(
            "ACL", "SETUSER", name, "reset", "on", f">{password}", f"~{prefix}*", "resetchannels", f"&{prefix}*",
            *TENANT_RULES,
        )  # fmt: skip

    async def publish(self, tenant_id: UUID, channel: str) -> None:
        """Ring `t:<tenant>:<channel>`; best effort, never raises for Redis.

        Channels: `run:<id>`, `item:<id>`, `log:<run id>`, `kills`.
        """
        with contextlib.suppress(*_FAILURES):
            tenant = await self._reach(tenant_id)
            if tenant is not None:
                async with self._watched(tenant_id):
                    await tenant.client.publish(tenant.prefix + channel, b"")

    async def append_log(self, tenant_id: UUID, run_id: UUID, records: list[TailRecord]) -> None:
        """Add to the tail of a run's output and ring `log:<run id>`; best effort, never raises for Redis."""
        with contextlib.suppress(*_FAILURES):
            tenant = await self._reach(tenant_id)
            if tenant is None:
                return
            key = f"{tenant.prefix}log:{run_id}"
            async with self._watched(tenant_id):
                pipe = tenant.client.pipeline(transaction=False)
                for record in records:
                    fields: dict[Any, Any] = {
                        "attempt": record.attempt, "offset": record.offset, "stream": record.stream,
                        "at": record.at, "data": record.data,
                    }  # fmt: skip
                    pipe.xadd(key, fields, maxlen=TAIL_RECORDS, approximate=True)
                pipe.expire(key, TAIL_SECONDS)
                pipe.publish(key, b"")
                await pipe.execute()

    async def tail(self, tenant_id: UUID, run_id: UUID, after: str = "") -> list[TailRecord]:
        """Records of the tail after the one with this id (empty: all there are); none when Redis is away."""
        with contextlib.suppress(*_FAILURES):
            tenant = await self._reach(tenant_id)
            if tenant is not None:
                async with self._watched(tenant_id):
                    start = f"({after}" if after else "-"
                    found = await tenant.client.xrange(f"{tenant.prefix}log:{run_id}", min=start, count=200)
                    return [_record(entry_id, fields) for entry_id, fields in cast("list[tuple[Any, Any]]", found)]
        return []

    @asynccontextmanager
    async def listen(self, tenant_id: UUID, channel: str) -> AsyncGenerator[Bell]:
        """Hear the rings of `t:<tenant>:<channel>` while the context lasts."""
        bell = Bell()
        tenant: _Tenant | None = None
        with contextlib.suppress(*_FAILURES):
            tenant = await self._reach(tenant_id)
        name = f"t:{tenant_id}:{channel}"
        if tenant is not None:
            tenant.bells.setdefault(name, set()).add(bell)
            if tenant.listener is None or tenant.listener.done():
                tenant.listener = asyncio.create_task(self._listen_for_ever(tenant))
        try:
            yield bell
        finally:
            if tenant is not None:
                bells = tenant.bells.get(name, set())
                bells.discard(bell)
                if not bells:
                    tenant.bells.pop(name, None)

    async def _listen_for_ever(self, tenant: _Tenant) -> None:
        while True:
            try:
                async with cast("Any", tenant.client).pubsub() as subscription:
                    # The pattern is, letter by letter, the one that the user may listen to.
                    await subscription.psubscribe(tenant.prefix + "*")
                    while True:
                        message: Any = await subscription.get_message(ignore_subscribe_messages=True, timeout=4.0)
                        if message is not None:
                            channel = message["channel"].decode()
                            for bell in tenant.bells.get(channel, ()):
                                bell.ring()
            except _FAILURES as error:
                log.info("not_listening", why=str(error)[:200])
            await asyncio.sleep(AWAY_SECONDS / 2)

    async def _reach(self, tenant_id: UUID) -> _Tenant | None:
        if time.monotonic() < self._away_until:
            return None
        async with self._watched(tenant_id):
            return await self._tenant(tenant_id)

    @asynccontextmanager
    async def _watched(self, tenant_id: UUID) -> AsyncGenerator[None]:
        """Bound the time, and remember a failure: also the tenant's user may be gone with a lost Redis."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS * 2):
                yield
        except _FAILURES as error:
            self._away_until = time.monotonic() + AWAY_SECONDS
            log.warning("redis_away", why=str(error)[:200] or type(error).__name__)
            if tenant_id in self._tenants:
                with contextlib.suppress(*_FAILURES):
                    async with asyncio.timeout(TIMEOUT_SECONDS):
                        await self._make_user(tenant_id)
            raise

    async def ping(self) -> None:
        """Raise when Redis does not answer."""
        await cast("Any", self._admin.ping())

    async def close(self) -> None:
        """Close every connection."""
        for tenant in self._tenants.values():
            if tenant.listener is not None:
                tenant.listener.cancel()
                await asyncio.gather(tenant.listener, return_exceptions=True)
            await tenant.client.aclose(close_connection_pool=True)
        self._tenants.clear()
        await self._admin.aclose(close_connection_pool=True)


def _record(entry_id: bytes, fields: dict[bytes, bytes]) -> TailRecord:
    return TailRecord(
        id=entry_id.decode(),
        attempt=int(fields[b"attempt"]),
        offset=int(fields[b"offset"]),
        stream=fields[b"stream"].decode(),
        at=fields[b"at"].decode(),
        data=fields[b"data"],
    )
