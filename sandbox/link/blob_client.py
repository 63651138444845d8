"""Inputs in and artifacts out, by digest, under the session's token."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import structlog

from sandbox.link.messages import BLOB_PATH
from sandbox.spec import InputFile

log = structlog.get_logger(__name__)

_CHUNK = 256 * 1024
_TRANSFER = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)


class BlobRefusedError(Exception):
    """The broker will not give or take this blob; asking again changes nothing."""


class BlobClient:
    """Talks to the broker's blob routes while there is a session; waits while there is none."""

    def __init__(self, base_url: str) -> None:
        self._base = base_url
        self._token: str | None = None
        self._ready = asyncio.Event()

    def session(self, token: str | None) -> None:
        """A session began (its token) or ended (None)."""
        self._token = token
        if token is None:
            self._ready.clear()
        else:
            self._ready.set()

    def _url(self, sha256: str) -> str:
        return self._base + BLOB_PATH.format(sha256=sha256)

    async def _headers(self) -> dict[str, str]:
        await self._ready.wait()
        return {"Authorization": f"Bearer {self._token}"}

    async def fetch(self, wanted: InputFile, target: Path) -> None:
        """Writes an input to ``target``; tries until it has it. Raises ``BlobRefusedError``."""
        pause = 0.2
        while True:
            try:
                await self._fetch_once(wanted, target)
                return
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                log.warning("input_not_fetched_yet", path=wanted.path, error=str(error)[:200])
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)

    async def _fetch_once(self, wanted: InputFile, target: Path) -> None:
        headers = await self._headers()
        digest, size = hashlib.sha256(), 0
        async with (
            aiohttp.ClientSession(timeout=_TRANSFER) as http,
            http.get(self._url(wanted.sha256), headers=headers) as response,
        ):
            if response.status in (403, 404):
                raise BlobRefusedError(f"input {wanted.path}: the broker answered {response.status}")
            response.raise_for_status()
            with target.open("wb") as file:
                async for chunk in response.content.iter_chunked(_CHUNK):
                    size += len(chunk)
                    if size > wanted.size:
                        break
                    digest.update(chunk)
                    file.write(chunk)
        if size != wanted.size or digest.hexdigest() != wanted.sha256:
            raise BlobRefusedError(f"input {wanted.path}: what came is not what its digest says")

    async def store(self, sha256: str, source: Path) -> None:
        """Uploads an artifact once; raises ``BlobRefusedError`` or what the network raises."""
        headers = await self._headers()
        async with (
            aiohttp.ClientSession(timeout=_TRANSFER) as http,
            http.put(self._url(sha256), headers=headers, data=_chunks(source)) as response,
        ):
            if response.status in (403, 404, 413, 422):
                raise BlobRefusedError(f"the broker answered {response.status}")
            response.raise_for_status()


async def _chunks(source: Path) -> AsyncIterator[bytes]:
    with source.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
