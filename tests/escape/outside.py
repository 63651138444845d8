"""The servers that the bridge sends to, and a bridge that lets everything through: for the attacks on the real one.

Both servers are one, deliberately simple and trusting: it believes any length it is told, takes a part for
the whole, splits what comes into requests, keeps what it was asked, and says all of it back to whoever asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.guest_frames import json_frame
from sandbox.guest_listener import listen_in

TRUSTING_GUEST_SOCKET = "trusting.sock"


@dataclass
class Trusting:
    """An upstream.

    Attributes:
        reflects: Whether it says even the credential back.
        asked: What arrived whole, the credential left out.
    """

    warrant: str = field(default_factory=lambda: "eyJ" + secrets.token_hex(16))
    reflects: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            while await self._one(reader, writer):
                pass

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        line = (await reader.readline()).strip(b"\r\n")
        if not line:
            return False
        headers = await _headers(reader)
        size = 0 if line.startswith(b"GET ") else await _skip_body(reader, headers)
        credential = " ".join(value for name, value in headers if name == "authorization")
        bearer = "the run's" if credential == f"Bearer {self.warrant}" else credential.removeprefix("Bearer ")
        kept = {name: value[:200] for name, value in headers[:50] if name != "authorization"}
        self.asked.append({"line": line.decode("latin-1")[:300], "headers": kept, "bearer": bearer, "size": size})
        answer: list[Any] = list(self.asked)
        if self.reflects:
            answer.append(credential)
        body = json.dumps(answer).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
        await writer.drain()
        return ("connection", "close") not in headers


async def _headers(reader: asyncio.StreamReader) -> list[tuple[str, str]]:
    """Reads loosely: a line end of any kind, spaces anywhere, folded lines and all."""
    found: list[tuple[str, str]] = []
    while line := (await reader.readline()).replace(b"\0", b"\r").rstrip(b"\r\n"):
        for part in line.split(b"\r"):
            name, _, value = part.decode("latin-1").partition(":")
            found.append((name.strip().lower(), value.strip()))
    return found


async def _skip_body(reader: asyncio.StreamReader, headers: list[tuple[str, str]]) -> int:
    """Believes the first length, else chunks, else that there is none."""
    for name, value in headers:
        if name == "content-length":
            size = max(0, int(value.split(",")[0]))
            try:
                await reader.readexactly(size)
            except asyncio.IncompleteReadError as cut_off:
                return len(cut_off.partial)
            return size
    if not any(name == "transfer-encoding" and "chunked" in value for name, value in headers):
        return 0
    total = 0
    while size := int((await reader.readline()).split(b";")[0].strip() or b"0", 16) % (1 << 64):
        await reader.readexactly(size + 2)
        total += size
    headers += await _headers(reader)
    return total


Attend = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class _Attended:
    """Serves connections, and ends those that are left with itself."""

    def __init__(self, attend: Attend) -> None:
        self._attend = attend
        self._tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = writer
        try:
            with contextlib.suppress(OSError):
                await self._attend(reader, writer)
        finally:
            writer.close()
            self._tasks.pop(task, None)

    async def end(self) -> None:
        for writer in self._tasks.values():
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def _until_end(attended: _Attended, *servers: asyncio.Server) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        for server in servers:
            server.close()
        await attended.end()


@contextlib.asynccontextmanager
async def trusting_server(upstream: Trusting) -> AsyncGenerator[str]:
    attended = _Attended(upstream.serve)
    server = await asyncio.start_server(attended, "127.0.0.1", 0, limit=1 << 24)
    async with _until_end(attended, server):
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@contextlib.asynccontextmanager
async def open_ports(folder: Path, url: str) -> AsyncGenerator[None]:
    """The control: bytes go through as they are."""
    port = int(url.rpartition(":")[2])

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))
        finally:
            there_writer.transport.abort()

    attended = _Attended(carry)
    made = [await asyncio.start_unix_server(attended, sock=listen_in(folder, f"{n}.sock")) for n in ("llm", "awgp")]
    async with _until_end(attended, *made):
        yield


@contextlib.asynccontextmanager
async def trusting_guest_host(folder: Path) -> AsyncGenerator[None]:
    """A host that welcomes whoever comes, takes frames of any size and kind, and thanks for every artifact."""

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json_frame(b"W", output_offset=0, artifacts_done=[]))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                kind, length = struct.unpack(">cI", await reader.readexactly(5))
                await reader.readexactly(length)
                if kind == b"E" and not writer.is_closing():
                    writer.write(json_frame(b"C", path=""))

    attended = _Attended(attend)
    listener = listen_in(folder, TRUSTING_GUEST_SOCKET)
    server = await asyncio.start_unix_server(attended, sock=listener, limit=1 << 32)
    async with _until_end(attended, server):
        yield


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
        return
    writer.close()
