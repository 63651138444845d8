"""Redis (Valkey): tails, pub/sub. All of it can be lost at any moment: each reader polls PostgreSQL behind it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID


class Bell(Protocol):
    """Rung by `Cache.publish` on a channel; also when nobody can tell, so that its holder looks for itself."""

    async def wait(self, timeout: float) -> bool:
        """Wait for a ring, at most `timeout` seconds; whether it rang. With Redis away it just waits."""
        ...


class Cache:
    """Connections made for a tenant use its own ACL user (`~t:<tenant>:*`, `&t:<tenant>:*`).

    Args:
        url: Of the control plane's own user, which may make the tenants' users.
        tenant_key: HMAC key from which their passwords come.
    """

    def __init__(self, url: str, tenant_key: str) -> None:
        self._url = url
        self._tenant_key = tenant_key

    async def publish(self, tenant_id: UUID, channel: str) -> None:
        """Ring `t:<tenant>:<channel>`; best effort, never raises for Redis. Channels: `run:<id>`, `item:<id>`, `kills`."""
        raise NotImplementedError

    def listen(self, tenant_id: UUID, channel: str) -> AbstractAsyncContextManager[Bell]:
        """Hear the rings of `t:<tenant>:<channel>` while the context lasts."""
        raise NotImplementedError

    async def ping(self) -> None:
        """Raise when Redis does not answer."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close every connection."""
