"""Callers that ask again as soon as they are answered: wrk where it is installed, else a small generator of our own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

SCRIPT = Path(__file__).with_name("load.lua")


@dataclass(frozen=True)
class Result:
    """What a load gave; times in milliseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    failed: int

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


@dataclass(frozen=True)
class Target:
    """Where a request goes, and as whom."""

    name: str
    url: str
    token: str = ""


def tool() -> str:
    """What makes the load."""
    return "wrk" if shutil.which("wrk") else "asyncio (wrk is not installed: it costs more, and both sides see that)"


async def load(target: Target, body: bytes, callers: int, seconds: float) -> Result:
    """Keep `callers` busy for so long; each has one connection, which stays open."""
    if shutil.which("wrk"):
        return await _wrk(target, body, callers, seconds)
    return await _own(target, body, callers, seconds)


async def _wrk(target: Target, body: bytes, callers: int, seconds: float) -> Result:
    process = await asyncio.create_subprocess_exec(
        "wrk", "-t1", f"-c{callers}", f"-d{max(1, round(seconds))}s", "--timeout", "30s", "-s", str(SCRIPT), target.url,
        env={**os.environ, "BENCH_BODY": body.decode(), "BENCH_TOKEN": target.token},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    line = next((line for line in output.decode().splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise RuntimeError(f"wrk said: {output.decode()[-500:]}")
    return Result(**json.loads(line.removeprefix("RESULT ")))


class _Caller(asyncio.Protocol):
    """Sends the same bytes, and times each answer."""

    def __init__(self, request: bytes, until: float, times: list[float]) -> None:
        self._request, self._until, self._times = request, until, times
        self._buffer = bytearray()
        self._began = 0.0
        self._transport: asyncio.Transport | None = None
        self.failed = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        if not self.done.done():
            self.failed += 1
            self.done.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._buffer += data
        if not self._ended():
            return
        now = time.perf_counter()
        self._times.append(now - self._began)
        self.failed += not self._buffer.startswith(b"HTTP/1.1 200")
        self._buffer.clear()
        if now < self._until:
            self._ask()
        elif not self.done.done():
            self.done.set_result(None)

    def _ask(self) -> None:
        assert self._transport is not None, "connected"
        self._began = time.perf_counter()
        self._transport.write(self._request)

    def _ended(self) -> bool:
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return False
        headers = bytes(self._buffer[:head]).lower()
        if b"chunked" in headers:
            return self._buffer.endswith(b"\r\n0\r\n\r\n")
        length = headers.partition(b"content-length:")[2].split(b"\r\n")[0]
        return len(self._buffer) >= head + 4 + int(length or 0)


async def _own(target: Target, body: bytes, callers: int, seconds: float) -> Result:
    parts = urlsplit(target.url)
    credentials = f"authorization: Bearer {target.token}\r\nx-awgp-run-attempt: 1\r\n" if target.token else ""
    head = (
        f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n{credentials}"
        f"content-length: {len(body)}\r\n\r\n"
    )
    loop, times = asyncio.get_running_loop(), list[float]()
    began = time.perf_counter()

    def caller() -> _Caller:
        return _Caller(head.encode() + body, began + seconds, times)

    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    made = [await loop.create_connection(caller, host, port) for _ in range(callers)]
    await asyncio.gather(*(caller.done for _, caller in made))
    took = time.perf_counter() - began
    for transport, _ in made:
        transport.close()
    times.sort()
    at = [times[min(len(times) - 1, int(len(times) * share))] * 1e3 for share in (0.5, 0.99)]
    return Result(len(times), took, at[0], at[1], sum(caller.failed for _, caller in made))
