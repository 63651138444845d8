"""What the gateway does when something that it stands on is away, comes back empty, or when it is killed itself."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from models.repositories import llm_ledger
from models.services.llm_closing import ModelCloser
from models.storage.db import Database
from models.storage.llm_money import LlmMoney
from tests.fixtures.companies import Company
from tests.fixtures.model_calls import GRANT, LiveModelRun, ledger
from tests.fixtures.postgres import TestDatabase, free_port
from tests.fixtures.private_valkey import PrivateValkey, private_valkey, wire_to
from tests.fixtures.runs import SIGNER
from tests.fixtures.valkey import ValkeyServer
from tests.gateway.conftest import (
    COST,
    DONE,
    LAST,
    Upstream,
    World,
    completion,
    eventually,
    plain,
    settings_of,
    stream,
    words,
    world_of,
)
from workers.gateway import build

__all__ = ["private_valkey"]


async def test_postgres_away_for_longer_than_a_copy_is_good_for(
    db: Database, database: TestDatabase, valkey: ValkeyServer, upstream: Upstream, run: LiveModelRun, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    async with wire_to(database.server.port) as wire:
        settings = settings_of(database, valkey, upstream.url, tmp_path)
        there = database.app_url.replace(f":{database.server.port}/", f":{wire.port}/")
        settings = settings.model_copy(update={"database_app_url": SecretStr(there)})
        async with world_of(build(settings), db, valkey, upstream, run) as world:
            assert (await world.call())[0] == 200
            await wire.cut()
            assert (await world.call())[0] == 200
            monkeypatch.setattr("models.services.run_credentials.COPY_SECONDS", 0.0)
            status, answer, headers = await world.call()
            assert (status, headers["retry-after"]) == (503, "5")
            assert answer["dependency"] == "postgres"
            async with world.client.get(f"{world.url}/readyz") as ready:
                assert (ready.status, list((await ready.json())["away"])) == (503, ["postgres", "prices"])
            assert len(await world.money.entries()) == 2  # kept where they are
            await wire.join()
            assert (await world.call())[0] == 200
            assert len(await _rows(world, run, 3)) == 3


async def _rows(world: World, run: LiveModelRun, calls: int) -> list[Any]:
    async def rows() -> list[Any] | None:
        async with world.db.tenant_session(run.claims.tenant) as session:
            found = await llm_ledger.charges(session, run.claims.tenant, run.item.id)
        return found if len(found) >= calls else None

    return await eventually(rows)


async def test_redis_away_before_and_during_a_call(
    db: Database, database: TestDatabase, valkey: ValkeyServer, upstream: Upstream, run: LiveModelRun, tmp_path: Path
) -> None:
    async with wire_to(valkey.port) as wire:
        through = ValkeyServer(wire.port, valkey.password)
        settings = settings_of(database, through, upstream.url, tmp_path)
        async with world_of(build(settings), db, valkey, upstream, run) as world:
            assert (await world.call())[0] == 200
            go_on = asyncio.Event()
            world.upstream.plays = stream(*words("one"), go_on, LAST, DONE)
            async with world.request(stream=True) as answer:
                await answer.content.readany()
                await wire.cut()
                status, refusal, _ = await world.call()
                assert (status, refusal["dependency"]) == (503, "redis")
                go_on.set()
                assert (await answer.content.read()).endswith(DONE)
            assert (await world.standing())["held"] > 0
            [spooled] = (tmp_path / "llm-spool").iterdir()
            assert spooled.stat().st_mode & 0o777 == 0o600
            await wire.join()
            assert [row.amount_nano for row in await _rows(world, run, 2)] == [COST, COST]
            assert await world.standing() == {"limit": GRANT, "charged": 2 * COST, "held": 0, "closed": 0}
            world.upstream.plays = plain()
            assert (await world.call())[0] == 200


@pytest.mark.parametrize("memory", ["from its file", "empty"])
async def test_a_redis_that_came_back_is_another(
    db: Database, database: TestDatabase, private_valkey: PrivateValkey, upstream: Upstream, run: LiveModelRun,
    tmp_path: Path, acme: Company, memory: str,
) -> None:  # fmt: skip
    settings = settings_of(database, private_valkey.server, upstream.url, tmp_path)
    async with world_of(build(settings), db, private_valkey.server, upstream, run) as world:
        assert (await world.call())[0] == 200
        await _rows(world, run, 1)
        go_on = asyncio.Event()
        world.upstream.plays = stream(*words("one"), go_on, LAST, DONE)
        async with world.request(stream=True) as answer:
            await answer.content.readany()
            private_valkey.kill()
            private_valkey.start()
            if memory == "empty":
                private_valkey.empty()
            for _ in range(2):
                status, refusal, headers = await world.call()
                assert (status, headers["x-awgp-refused"]) == (503, "redis_another_life"), refusal
            go_on.set()
            await answer.content.read()
        assert [row.amount_nano for row in await _rows(world, run, 2)] == [COST, COST]
        money = LlmMoney(private_valkey.url)
        await ModelCloser(db, money).close(acme.id, run.item.id)
        await money.shut()
    rows = await ledger(db, acme, run.item.id)
    assert sorted(row.kind for row in rows) == ["final", "final", "unaccounted"]
    assert sum(row.amount_nano for row in rows) == GRANT


class GatewayProcess:
    """A gateway in a process of its own, to be killed."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment = environment
        self._log = log
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Generator[subprocess.Popen[bytes]]:
        environment = {**os.environ, **self._environment, "AWGP_GATEWAY_PORT": str(self.port)}
        command = ["setpriv", "--pdeathsig=KILL", "--", sys.executable, "-m", "workers.gateway"]
        with self._log.open("ab") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    async def ready(self, client: aiohttp.ClientSession) -> None:
        async def look() -> bool | None:
            try:
                async with client.get(f"{self.url}/readyz") as answer:
                    return True if answer.status == 200 else None
            except aiohttp.ClientError:
                return None

        await eventually(look, 60)


@pytest.fixture
def process(database: TestDatabase, valkey: ValkeyServer, upstream: Upstream, tmp_path: Path) -> GatewayProcess:
    environment = {
        "AWGP_DATABASE_APP_URL": database.app_url, "AWGP_REDIS_URL": valkey.url, "AWGP_REDIS_TENANT_KEY": "k" * 32,
        "AWGP_WARRANT_PUBLIC_JWKS": SIGNER.public_jwks(), "AWGP_DATA": str(tmp_path),
        "AWGP_LLM_UPSTREAM_URL": f"{upstream.url}/v1",
    }  # fmt: skip
    return GatewayProcess(environment, tmp_path / "gateway.log")


@pytest.mark.parametrize("when", ["before the upstream answers", "in the middle of a stream", "after its end"])
async def test_a_gateway_that_is_killed_loses_nothing(
    db: Database, valkey: ValkeyServer, upstream: Upstream, run: LiveModelRun, process: GatewayProcess, acme: Company,
    when: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    go_on, heard = asyncio.Event(), asyncio.Event()

    async def block(_heard: Any, receive: Any, send: Any) -> None:
        heard.set()
        plays = {
            "before the upstream answers": stream(go_on, LAST, DONE),
            "in the middle of a stream": stream(*words("one"), go_on, LAST, DONE),
            "after its end": plain(body=completion()),
        }
        await plays[when](_heard, receive, send)

    upstream.plays = block
    money = LlmMoney(valkey.url)
    async with aiohttp.ClientSession() as client:
        world = World(process.url, db, money, upstream, run)
        world.client = client
        with process.running() as running:
            await process.ready(client)
            asked = asyncio.ensure_future(world.call(stream=when != "after its end"))
            await heard.wait()
            if when == "after its end":
                await asked
            held_before = await world.standing()
            running.send_signal(signal.SIGKILL)
            running.wait()
            await asyncio.gather(asked, return_exceptions=True)
        go_on.set()
        assert await world.standing() == held_before
        upstream.plays = plain()
        with process.running():
            await process.ready(client)
            assert (await world.call())[0] == 200
            standing = await world.standing()
            assert standing["charged"] + standing["held"] <= GRANT
            monkeypatch.setattr("models.services.llm_closing.UNDER_WAY_SECONDS", 0)
            await ModelCloser(db, money).close(acme.id, run.item.id)
    rows = await ledger(db, acme, run.item.id)
    assert len(rows) == len(upstream.heard) == 2
    [first] = [row for row in rows if row.streamed == (when != "after its end") or row.kind == "estimated"][:1]
    if when == "after its end":
        assert [row.amount_nano for row in rows] == [COST, COST]
    else:
        assert (first.kind, first.amount_nano) == ("estimated", first.held_nano)
    assert sum(row.amount_nano for row in rows) == (await money.standing(run.claims.reservation))["charged"]
    await money.shut()
