"""The host's side of an agent's ports with a server of ours outside: what an agent sends, and what arrives."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

from sandbox.agent_forwarding import Outside
from sandbox.agent_ports import AgentPorts
from sandbox.agent_upstreams import Upstreams
from sandbox.artifact_intake import ArtifactIntake

WARRANT = "warrant-of-this-run"
Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Arrived:
    """One request as it came out."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass
class Upstream:
    """A server outside.

    Attributes:
        answer: What it does with a request, after it was recorded; replaced by tests.
    """

    url: str = ""
    arrived: list[Arrived] = field(default_factory=list[Arrived])
    answer: Answer | None = None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.answer is not None:
            return await self.answer(request)
        await self.record(request)
        return web.json_response({"outside": "yes"})

    async def record(self, request: web.BaseRequest) -> Arrived:
        body = b"".join([piece async for piece in request.content.iter_any()])
        arrived = Arrived(request.method, request.raw_path, list(request.headers.items()), body)
        self.arrived.append(arrived)
        return arrived


@contextlib.asynccontextmanager
async def upstream() -> AsyncGenerator[Upstream]:
    made = Upstream()
    server = web.Server(made.handle, handler_cancellation=True, access_log=None)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        listener.close()
        await server.shutdown(0.05)


@dataclass
class World:
    """Ports, and the server outside.

    Attributes:
        http: A client of llm.sock.
        awgp: One of awgp.sock.
    """

    upstream: Upstream
    upstreams: Upstreams
    ports: AgentPorts
    intake: ArtifactIntake
    folder: Path
    http: aiohttp.ClientSession
    awgp: aiohttp.ClientSession

    async def ask(
        self, method: str, path: str, *, data: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        if isinstance(data, bytes):
            data = io.BytesIO(data)
        client = self.http if path.startswith("/llm") else self.awgp
        async with client.request(method, self.url(path), data=data, headers=headers) as answer:
            return answer.status, await answer.read()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1{path}"

    async def raw(self, text: bytes, name: str = "llm.sock") -> bytes:
        """Sends bytes as they are and returns all that comes back."""
        reader, writer = await self.dial(name)
        with contextlib.suppress(ConnectionError):
            writer.write(text)
            await writer.drain()
        try:
            return await asyncio.wait_for(reader.read(), 20)
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def dial(self, name: str = "llm.sock") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{name}")
        finally:
            os.close(folder)


@contextlib.asynccontextmanager
async def world(base: Path, *, artifact_bytes: int = 1 << 20, most_connections: int = 480) -> AsyncGenerator[World]:
    for name in ("artifacts", "run"):
        (base / name).mkdir()
    intake = ArtifactIntake(base / "artifacts", base / "artifacts.jsonl", artifact_bytes)
    descriptor = os.open(base / "run", os.O_RDONLY | os.O_DIRECTORY)
    async with upstream() as outside:
        upstreams = Upstreams(outside.url, outside.url, each=most_connections)
        ports = AgentPorts(Outside(upstreams, WARRANT, 3), intake)
        await ports.open(base / "run")
        llm = aiohttp.UnixConnector(f"/proc/self/fd/{descriptor}/llm.sock", limit=0)
        awgp = aiohttp.UnixConnector(f"/proc/self/fd/{descriptor}/awgp.sock", limit=0)
        async with aiohttp.ClientSession(connector=llm) as http, aiohttp.ClientSession(connector=awgp) as other:
            try:
                yield World(outside, upstreams, ports, intake, base / "run", http, other)
            finally:
                await ports.close()
                await upstreams.close()
                os.close(descriptor)
