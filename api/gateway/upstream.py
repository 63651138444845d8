"""The upstream: any API that speaks OpenAI's. A POST that may have been executed is never sent again."""

from __future__ import annotations

import asyncio
import io

import aiohttp

from api.gateway.refusals import UpstreamAway

CONNECT_SECONDS = 10.0
TOTAL_SECONDS = 600.0
"""Of a call, streams included: after that it is cut and charged for what was produced."""
IDLE_SECONDS = 15.0
"""How long a connection waits for its next call: shorter than upstreams wait, so that none is ended under a request."""
MOST_CONNECTIONS = 1024
CONNECT_TRIES = 3
IN_ONE_GO = 256 * 1024
LARGEST_ANSWER = 64 * 1024 * 1024


class NotSentError(UpstreamAway):
    """No connection was had, so that nothing was executed: the call is free."""


class Upstream:
    """Pooled connections to one base URL.

    Args:
        url: Without a slash at its end, e.g. `https://openrouter.ai/api/v1`. The operator's: agents cannot change it.
        key: Shown as a bearer token; empty: none is.
    """

    def __init__(self, url: str, key: str = "") -> None:
        self.url = url.rstrip("/")
        self._completions = f"{self.url}/chat/completions"
        self._key = key
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the pool, in the running event loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MOST_CONNECTIONS, keepalive_timeout=IDLE_SECONDS, ttl_dns_cache=60),
            timeout=aiohttp.ClientTimeout(total=TOTAL_SECONDS, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent",),
            # An encoding would have to be taken off again to see the usage.
            headers={"Accept-Encoding": "identity", **({"Authorization": f"Bearer {self._key}"} if self._key else {})},
        )

    async def complete(self, headers: list[tuple[str, str]], body: bytes) -> aiohttp.ClientResponse:
        """Send a request and answer its response's head; the caller releases it.

        Raises:
            NotSentError: The upstream cannot be reached; tried three times.
            aiohttp.ClientError: The connection broke after something was sent.
            TimeoutError: No answer in time.
        """
        assert self._session is not None, "opened at the start"
        for turn in range(CONNECT_TRIES):
            # aiohttp writes bytes in one go, which for large ones would keep the other calls waiting.
            data = io.BytesIO(body) if len(body) > IN_ONE_GO else body
            try:
                return await self._session.post(self._completions, data=data, headers=headers, allow_redirects=False)
            except aiohttp.ClientConnectorError as error:
                if turn == CONNECT_TRIES - 1:
                    words = "the upstream cannot be reached; nothing was sent, and nothing is charged"
                    raise NotSentError(words, code="upstream_unreachable") from error
                await asyncio.sleep(0.1 * 4**turn)
        raise AssertionError("the loop answers or raises")

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
