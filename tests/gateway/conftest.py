"""A gateway over real PostgreSQL and Valkey, before an upstream that does as the test says."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn

from api.gateway.app import Gateway
from models.services import rate_cards
from models.settings import Settings
from models.storage.db import Database
from models.storage.llm_money import LlmMoney
from tests.fixtures.companies import Company
from tests.fixtures.model_calls import CARD, GRANT, LiveModelRun, give_grant, live_run
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.runs import SIGNER
from tests.fixtures.valkey import ValkeyServer
from tests.fixtures.work import Work
from workers.gateway import build

Play = Callable[["Heard", Any, Any], Awaitable[None]]
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
COST = 10 * 1000 + 5 * 2000
LARGE = CARD.model_copy(update={"model": "scripted/large", "input": 10**11, "output": 10**12})
SMALL = CARD.model_copy(update={"model": "scripted/free", "input": 0, "output": 0})


@dataclass
class Heard:
    """One request as the upstream got it."""

    headers: dict[str, str]
    raw: bytes
    body: dict[str, Any]


def completion(usage: dict[str, Any] | None = USAGE, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "hello"}
    answer = {"id": "gen-1", "model": CARD.model, "choices": [{"index": 0, "message": message}], **more}
    return answer if usage is None else {**answer, "usage": usage}


def plain(status: int = 200, body: Any = None, headers: dict[str, str] | None = None) -> Play:
    async def play(_heard: Heard, _receive: Any, send: Any) -> None:
        document = json.dumps(completion() if body is None else body).encode()
        named = {"content-type": "application/json", "x-provider": "p", **(headers or {})}
        pairs = [(name.encode(), value.encode()) for name, value in named.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": document})

    return play


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps({"id": "gen-2", "model": CARD.model, **fields}).encode() + b"\n\n"


def words(*texts: str) -> list[bytes]:
    return [event(choices=[{"index": 0, "delta": {"content": text}}]) for text in texts]


LAST = event(choices=[], usage=USAGE)
DONE = b"data: [DONE]\n\n"


def stream(*pieces: bytes | asyncio.Event, cut: bool = False) -> Play:
    async def play(_heard: Heard, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in pieces:
            if isinstance(piece, asyncio.Event):
                gone = asyncio.ensure_future(receive())
                go_on = asyncio.ensure_future(piece.wait())
                await asyncio.wait([gone, go_on], return_when=asyncio.FIRST_COMPLETED)
                gone.cancel()
                go_on.cancel()
                continue
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if cut:
            raise ConnectionResetError("the script says so")
        await send({"type": "http.response.body", "body": b""})

    return play


@dataclass
class Upstream:
    """What it heard, and what it plays next."""

    url: str = ""
    plays: Play = field(default_factory=plain)
    heard: list[Heard] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raw = b""
        while True:
            message = await receive()
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["method"] == "GET":  # its list of models, which the gateway reads for their prices
            await plain(body={"data": []})(Heard({}, b"", {}), receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.heard.append(Heard(headers, raw, json.loads(raw or b"{}")))
        await self.plays(self.heard[-1], receive, send)


@asynccontextmanager
async def serving(app: Any, lifespan: Any = "off") -> AsyncGenerator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        config = uvicorn.Config(
            app, lifespan=lifespan, log_level=60, access_log=False, timeout_graceful_shutdown=3, server_header=False
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server._serve(sockets=[listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


async def eventually(look: Callable[[], Awaitable[Any]], seconds: float = 20) -> Any:
    """What `look` finds, once it finds something."""
    deadline = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < deadline:
        found = await look()
        if found is not None:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError("it never came")


class World:
    """Everything that a test of the gateway touches."""

    def __init__(self, url: str, db: Database, money: LlmMoney, upstream: Upstream, run: LiveModelRun) -> None:
        self.url, self.db, self.money, self.upstream, self.run = url, db, money, upstream, run
        self.client: Any = None

    def request(self, stream: bool = False, token: str = "", **more: Any) -> Any:
        body = {"model": CARD.model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50, **more}
        if stream:
            body["stream"] = True
        body = {name: value for name, value in body.items() if value is not ...}
        headers = {"Authorization": f"Bearer {token or self.run.token}"}
        return self.client.post(f"{self.url}/llm/v1/chat/completions", json=body, headers=headers)

    async def call(self, stream: bool = False, **more: Any) -> tuple[int, Any, Any]:
        async with self.request(stream, **more) as answer:
            raw = await answer.read()
            return answer.status, raw if stream and answer.status == 200 else json.loads(raw), answer.headers

    async def standing(self) -> dict[str, int]:
        return await self.money.standing(self.run.claims.reservation)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    made = Upstream()
    async with serving(made) as url:
        made.url = url
        yield made


def settings_of(database: TestDatabase, valkey: ValkeyServer, upstream_url: str, folder: Path) -> Settings:
    return Settings.model_validate(
        {
            "database_app_url": database.app_url, "redis_url": valkey.url, "redis_tenant_key": "k" * 32,
            "warrant_public_jwks": SIGNER.public_jwks(), "data": folder, "llm_upstream_url": f"{upstream_url}/v1",
            "llm_upstream_key": "the-providers-key",
        }
    )  # fmt: skip


@pytest.fixture
async def gateway_settings(
    database: TestDatabase, valkey: ValkeyServer, upstream: Upstream, tmp_path: Path
) -> Settings:
    return settings_of(database, valkey, upstream.url, tmp_path)


@asynccontextmanager
async def world_of(
    gateway: Gateway, db: Database, valkey: ValkeyServer, upstream: Upstream, run: LiveModelRun
) -> AsyncGenerator[World]:
    money = LlmMoney(valkey.url)
    async with serving(gateway, "on") as url, aiohttp.ClientSession() as client:
        world = World(url, db, money, upstream, run)
        world.client = client
        yield world
    await money.shut()


@pytest.fixture
async def run(db: Database, database: TestDatabase, work: Work, acme: Company) -> LiveModelRun:
    await rate_cards.add(db, [CARD, LARGE, SMALL])
    give_grant(database, GRANT, models=["scripted/*", "unpriced/*"])
    return await live_run(db, database, work, acme, models=["scripted/*", "unpriced/*"])


@pytest.fixture
async def world(
    db: Database, valkey: ValkeyServer, upstream: Upstream, run: LiveModelRun, gateway_settings: Settings
) -> AsyncIterator[World]:
    async with world_of(build(gateway_settings), db, valkey, upstream, run) as made:
        yield made
