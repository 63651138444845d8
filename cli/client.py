"""The API, as the command speaks to it. Nothing else is spoken to (but the development issuer, for tokens)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast
from uuid import uuid4

import aiohttp

from cli import tokens
from cli.failures import CommandError, from_problem
from cli.settings import CliSettings

TIMEOUT_SECONDS = 30
TRIES = 4
"""A request that may be repeated (reads; creation under its idempotency key) outlives a restart of the API."""

Json = dict[str, Any]


class Api:
    """One session with the API."""

    def __init__(self, settings: CliSettings, user: str | None = None, *, anonymous: bool = False) -> None:
        self.settings = settings
        headers = {} if anonymous else {"Authorization": f"Bearer {tokens.find(settings, user)}"}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        self._session = aiohttp.ClientSession(headers=headers, timeout=timeout)

    async def __aenter__(self) -> Self:
        """Open it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self._session.close()

    async def get(self, path: str, **query: Any) -> Json:
        """Read."""
        return await self._repeated("GET", path, params=_given(query))

    async def post(self, path: str, body: Json, **query: Any) -> Json:
        """Do something, once."""
        return await self._once("POST", path, json=body, params=_given(query))

    async def put(self, path: str, body: Json) -> Json:
        """Set something, once."""
        return await self._once("PUT", path, json=body)

    async def delete(self, path: str) -> Json:
        """Take something back; repeatable."""
        return await self._repeated("DELETE", path)

    async def create(self, path: str, body: Json, key: str | None = None) -> Json:
        """Create something under an idempotency key, so that it may be repeated."""
        return await self._repeated("POST", path, json=body, headers={"Idempotency-Key": key or str(uuid4())})

    async def upload(self, path: Path) -> Json:
        """Bring a file; answers its digest and size."""
        try:
            content = await asyncio.to_thread(path.read_bytes)
        except OSError as error:
            raise CommandError(f"{path} cannot be read", detail=str(error), code=CommandError.USAGE) from error
        headers = {"Content-Type": "application/octet-stream"}
        return await self._repeated("POST", "/v1/files", data=content, headers=headers)

    async def download(self, path: str, target: Path) -> int:
        """Write a file's bytes to `target`; answers their number."""
        async with self._open("GET", path) as response:
            content = await response.read()
        await asyncio.to_thread(target.write_bytes, content)
        return len(content)

    async def events(self, path: str, last_id: str = "", **query: Any) -> AsyncGenerator[tuple[str, str, Json]]:
        """Server-sent events as (name, id, data)."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_SECONDS, sock_read=60)
        async with self._open("GET", path, headers=headers, params=_given(query), timeout=timeout) as response:
            name, event_id, data = "", "", ""
            while line := await response.content.readuntil(b"\n"):
                field, _, value = line.decode().rstrip("\r\n").partition(": ")
                match field:
                    case "event":
                        name = value
                    case "id":
                        event_id = value
                    case "data":
                        data = value
                    case "" if data:
                        yield name, event_id, cast("Json", json.loads(data))
                        name, data = "", ""
                    case _:
                        pass

    async def _repeated(self, method: str, path: str, **options: Any) -> Json:
        for attempt in range(1, TRIES):
            try:
                return await self._once(method, path, **options)
            except CommandError as failure:
                if failure.code != CommandError.AWAY:
                    raise
                await asyncio.sleep(0.3 * 2**attempt)
        return await self._once(method, path, **options)

    async def _once(self, method: str, path: str, **options: Any) -> Json:
        async with self._open(method, path, **options) as response:
            return cast("Json", await response.json(content_type=None))

    @asynccontextmanager
    async def _open(self, method: str, path: str, **options: Any) -> AsyncGenerator[aiohttp.ClientResponse]:
        try:
            async with self._session.request(method, self.settings.api_url + path, **options) as response:
                if response.status >= 400:
                    raise from_problem(response.status, await _problem(response))
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = str(error) or type(error).__name__
            raise CommandError(
                f"The API at {self.settings.api_url} does not answer.",
                detail=what,
                mend="make up",
                code=CommandError.AWAY,
            ) from error


async def _problem(response: aiohttp.ClientResponse) -> Json:
    try:
        body = await response.json(content_type=None)
    except ValueError:
        return {"title": f"HTTP {response.status}", "detail": (await response.text())[:300]}
    return cast("Json", body) if isinstance(body, dict) else {}


def _given(query: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in query.items()
        if value is not None
    }
