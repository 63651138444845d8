"""Live runs with grants for model calls, the scripted upstream and gateways as processes: real but for the sandbox."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from uuid import UUID

from psycopg import sql
from sqlalchemy import text

from models.rules.policy import default_text
from models.services import assistants, money, policies, runs
from models.storage.db import Database
from tests.fixtures.companies import ASSISTANT, Company, read_company
from tests.fixtures.postgres import TestDatabase, free_port
from tests.fixtures.runs import SIGNER, claim, mint, new_runtime
from tests.fixtures.valkey import ValkeyServer
from tests.fixtures.work import Work, control
from workers import prices

CHECKOUT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
MOST = 10**15
"""Limits that are not what is looked at: a million dollars, and calls and tokens as they come."""


@dataclass(frozen=True)
class Grant:
    """A live run that may spend `nano` on models."""

    tenant_id: UUID
    work_item_id: UUID
    run_id: UUID
    reservation_id: UUID
    token: str
    nano: int

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "X-Awgp-Run-Attempt": "1"}


@dataclass
class Process:
    """A process of ours, restarted on the same port with the same settings."""

    module: str
    port: int
    environment: dict[str, str]
    log: Path
    pinned: Sequence[str] = ()
    running: subprocess.Popen[bytes] | None = None
    starts: int = 0
    _output: IO[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin; who wants to use it waits for `listening`."""
        self._output = self._output or self.log.open("ab")
        command = ["setpriv", "--pdeathsig=KILL", "--", *self.pinned, sys.executable, "-m", self.module]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWGP_")}
        environment |= self.environment
        self.running = subprocess.Popen(
            command, env=environment, cwd=CHECKOUT, stdout=self._output, stderr=self._output
        )
        self.starts += 1

    async def listening(self) -> None:
        """Wait until it accepts connections."""
        async with asyncio.timeout(START_SECONDS):
            while True:
                assert self.running is not None
                if self.running.poll() is not None:
                    raise RuntimeError(f"{self.module} ended: {self.log.read_text()[-3000:]}")
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return

    def kill(self) -> None:
        """As a machine that loses its power ends it."""
        if self.running is not None:
            self.running.kill()
            self.running.wait()

    def end(self) -> None:
        """Told to end, and waited for."""
        if self.running is not None and self.running.poll() is None:
            self.running.send_signal(signal.SIGTERM)
            try:
                self.running.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._output is not None:
            self._output.close()
            self._output = None

    def rss_kib(self) -> int:
        """Resident memory now."""
        assert self.running is not None
        status = Path(f"/proc/{self.running.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        return int(found[1]) if found else 0


class World:
    """A company with a policy, budgets and an assistant that allow everything; gateways and an upstream on request."""

    def __init__(
        self, db: Database, database: TestDatabase, valkey: ValkeyServer, company: Company, folder: Path
    ) -> None:
        self.db = db
        self.database = database
        self.valkey = valkey
        self.company = company
        self.folder = folder
        self.upstream_log = folder / "upstream.calls"
        self._processes: list[Process] = []

    async def grant(self, nano: int) -> Grant:
        """A run that is claimed and stays so, with so much for models."""
        item = await Work(self.db).assessed(self.company, "L1", limits={"llm_budget_nano_usd": nano})
        runtime = await new_runtime(self.db, self.company, f"host-{secrets.token_hex(4)}")
        async with self.db.tenant_session(self.company.id) as session:
            assert (await money.reserve(session, control(self.company.id), item.id)).held
            run = await runs.queue_run(session, control(self.company.id), item.id)
        minted = await mint(self.db, self.company, item.id)
        claimed = await claim(self.db, runtime, run.id, minted.attempt)
        assert claimed.state == "claimed", claimed.words
        with self.database.admin() as admin:
            admin.execute("update runs set lease_until = now() + interval '1 day' where id = %s", (run.id,))
        async with self.db.tenant_session(self.company.id) as session:
            connection = await session.connection()
            token = await connection.execute(text("select token from warrants where run_id = :run"), {"run": run.id})
            held = await connection.execute(
                text("select id from reservations where work_item_id = :item"), {"item": item.id}
            )
            return Grant(self.company.id, item.id, run.id, held.scalar_one(), token.scalar_one(), nano)

    def upstream(self, **settings: str) -> Process:
        """The scripted upstream, with a log of its own."""
        port = free_port()
        environment = {"AWGP_SCRIPTED_PORT": str(port), "AWGP_SCRIPTED_LOG": str(self.upstream_log)}
        return self._add(Process("workers.upstream", port, {**environment, **settings}, self.folder / "upstream.log"))

    def gateway(self, upstream_url: str, pinned: Sequence[str] = (), **settings: str) -> Process:
        """A gateway in front of an upstream."""
        port = free_port()
        environment = {
            "AWGP_GATEWAY_HOST": "127.0.0.1",
            "AWGP_GATEWAY_PORT": str(port),
            "AWGP_LLM_UPSTREAM_URL": f"{upstream_url}/v1",
            "AWGP_DATABASE_APP_URL": self.database.app_url,
            "AWGP_DATABASE_SYSTEM_URL": self.database.system_url,
            "AWGP_REDIS_URL": self.valkey.url,
            "AWGP_REDIS_TENANT_KEY": "k" * 32,
            "AWGP_WARRANT_PUBLIC_JWKS": SIGNER.public_jwks(),
            "AWGP_DATA": str(self.folder),
            "AWGP_LOG_LEVEL": "warning",
        }
        number = sum(process.module == "workers.gateway" for process in self._processes)
        log = self.folder / f"gateway{number}.log"
        return self._add(Process("workers.gateway", port, {**environment, **settings}, log, pinned))

    def _add(self, process: Process) -> Process:
        self._processes.append(process)
        return process

    def end(self) -> None:
        for process in reversed(self._processes):
            process.end()


@asynccontextmanager
async def world_of(database: TestDatabase, valkey: ValkeyServer) -> AsyncGenerator[World]:
    """A world over servers that run; its processes end with it."""
    db = Database(database.app_url)
    with tempfile.TemporaryDirectory(prefix="awgp-world-") as folder:
        try:
            company = await read_company(db, "acme")
            await _allow_everything(db, database, company)
            await prices.fill(db)
            world = World(db, database, valkey, company, Path(folder))
            try:
                yield world
            finally:
                world.end()
        finally:
            await db.close()


async def _allow_everything(db: Database, database: TestDatabase, company: Company) -> None:
    with database.admin() as admin:
        for table in ("budgets", "everything_budgets"):
            admin.execute(sql.SQL("update {} set limit_nano = %s").format(sql.Identifier(table)), (MOST * 100,))
    source = default_text()
    for name, most in (("most_per_item_nano_usd", MOST), ("rpm", 10**6), ("tpm", 10**12)):
        source, changed = re.subn(rf"^  {name}: \d+$", f"  {name}: {most}", source, flags=re.MULTILINE)
        assert changed == 1, name
    async with db.session_for(company.admin) as session:
        await policies.write_version(session, company.admin, source)
    async with db.session_for(company.owner) as session:
        row = await assistants.read(session, company.owner, ASSISTANT)
        llm = assistants.LlmAsked.model_validate({"budget_nano_usd": MOST, "rpm": 10**6, "tpm": 10**12})
        body = assistants.AssistantBody(name=row.name, image=row.image, llm=llm)
        await assistants.update(session, company.owner, row.id, row.version, body)
