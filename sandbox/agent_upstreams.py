"""Where the bridge's requests go: one pool of connections for all runs of this runtime."""

from __future__ import annotations

import aiohttp

from sandbox.agent_problems import AgentRefusedError
from sandbox.agent_routes import Side

CONNECT_SECONDS = 5.0
PLACE_SECONDS = 15.0
"""How long a request waits for a free connection of the pool, and then for it to be made."""
SILENCE_SECONDS = 620.0
"""A model may think for ten minutes before its first byte, and a long poll may wait; a stream may last for ever."""
IDLE_SECONDS = 4.0
"""Shorter than uvicorn's 5: a connection that the other side is about to close is not used again."""


MOST_CONNECTIONS = 480
"""An agent's, on both of its ports together; more than a guest carries."""
_KEPT_DESCRIPTORS = 256
"""For all else that the runtime has open."""


def connections_a_run(descriptors: int, capacity: int) -> int:
    """How many connections each run's agent may have open, so that all together leave the runtime its own.

    Args:
        descriptors: The process's limit; each connection may need another one outside.
        capacity: Sandboxes at once.
    """
    return max(16, min(MOST_CONNECTIONS, (descriptors - _KEPT_DESCRIPTORS) // (2 * capacity)))


class Upstreams:
    """The two servers that agents reach, and the client for both.

    Args:
        gateway_url: Of the model gateway; empty: what the broker says.
        api_url: Of the control plane's API; empty: what the broker says.
        most: Connections out at once, for all runs together.
        each: Connections in, of each run.
    """

    def __init__(
        self, gateway_url: str = "", api_url: str = "", most: int = 1024, each: int = MOST_CONNECTIONS
    ) -> None:
        self._set = {Side.GATEWAY: gateway_url.rstrip("/"), Side.API: api_url.rstrip("/")}
        self._offered: dict[Side, str] = {}
        self._most = most
        self.each = each
        self._http: aiohttp.ClientSession | None = None

    def offer(self, gateway_url: str, api_url: str) -> None:
        """What a broker says; it stands where no setting does."""
        self._offered = {Side.GATEWAY: gateway_url.rstrip("/"), Side.API: api_url.rstrip("/")}

    def base(self, side: Side) -> str:
        """The address of a side.

        Raises:
            AgentRefusedError: Nobody has said it yet.
        """
        url = self._set[side] or self._offered.get(side, "")
        if not url:
            detail = f"The host runtime does not know the address of the {side}: no broker has told it yet."
            raise AgentRefusedError(503, "upstream-away", f"The {side} is not known yet", detail, retry_after=1)
        return url

    @property
    def http(self) -> aiohttp.ClientSession:
        """The client; made in the loop that first asks for it."""
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._most, keepalive_timeout=IDLE_SECONDS, ttl_dns_cache=30),
                # One run's cookie must never travel with another's request.
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=PLACE_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS
                ),
                auto_decompress=False,
                trust_env=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        return self._http

    async def close(self) -> None:
        """Ends all connections."""
        if self._http is not None:
            await self._http.close()
            self._http = None
