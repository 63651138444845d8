"""The command as people run it: a process of its own, against a served API."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cli import tokens
from cli.settings import CliSettings
from models.domain.principal import Principal
from models.domain.rate_card import RateCard
from models.services import rate_cards
from models.storage.db import Database
from tests.api.conftest import Client
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase, free_port
from tests.fixtures.work import Work
from workers.dev_issuer import DevIssuer, DevUser

L1 = ("--kind", "reconcile", "--reversibility", "reversible", "--effect", "none")


@dataclass
class Said:
    code: int
    out: str
    err: str

    def ok(self) -> str:
        assert self.code == 0, (self.out, self.err)
        return self.out


@dataclass
class Awgp:
    client: Client
    data: Path
    environment: dict[str, str]

    def sign_in(self, person: Principal) -> None:
        """Keep a token, as `awgp token` does."""
        tokens.store(CliSettings.model_validate({"data": self.data}), person.username, self.client.issuer.token(person))

    async def __call__(self, *arguments: str, **environment: str) -> Said:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cli.main",
            *arguments,
            env={**os.environ, **self.environment, **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        assert b"Traceback" not in err, err.decode()
        return Said(process.returncode, out.decode(), err.decode())


@pytest.fixture
def awgp(api: Client, tmp_path: Path) -> Awgp:
    data = tmp_path / "data"
    data.mkdir()
    environment = {"AWGP_API_URL": api.url, "AWGP_DATA": str(data), "COLUMNS": "40", "NO_COLOR": "1"}
    return Awgp(api, data, environment)


async def test_asked_for_listed_shown_and_cancelled(awgp: Awgp, acme: Company, tmp_path: Path) -> None:
    awgp.sign_in(acme.requester)
    statement = tmp_path / "statement.csv"
    statement.write_text("date,amount\n")
    base = ("submit", "-a", "reconciler", "-t", "Reconcile [red]September", *L1)
    dry = (await awgp(*base, "--dry-run", "-f", str(statement))).ok()
    assert "L1" in dry
    assert "USD" in dry
    given = (
        *base,
        "-f",
        f"{statement}=in/a.csv",
        "-p",
        "month=9",
        "-p",
        "note=hi",
        "--amount",
        "12 USD",
        "--key",
        "k",
        "--json",
    )
    item = json.loads((await awgp(*given)).ok())
    assert item["parameters"] == {"month": 9, "note": "hi"}
    assert item["facts"]["amount_nano_usd"] == 12_000_000_000
    assert json.loads((await awgp(*given)).ok())["id"] == item["id"], "the same key"
    listed = (await awgp("list")).ok()
    assert "Reconcile [red]September" in listed, "somebody's title is no markup of ours"
    assert item["id"] in listed
    shown = (await awgp("show", "last")).ok()
    assert "in/a.csv" in shown
    assert "asked reconciler for" in shown
    assert "Asked" in (await awgp("cancel", item["id"], "-r", "not needed")).ok()
    assert "cancel" in (await awgp("show", item["id"])).ok()


async def test_a_refusal_is_said_with_its_places_and_an_exit_code(awgp: Awgp, acme: Company) -> None:
    awgp.sign_in(acme.requester)
    said = await awgp("submit", "-a", "nobody", "-t", "x", "--amount", "much", "--data-class", "secret")
    assert said.code == 1
    assert "Invalid input" in said.err
    assert "body.amount" in said.err
    assert "body.data_class" in said.err
    assert (await awgp("submit", "-a", "reconciler", "-t", "x", "-p", "no-equals")).code == 2
    assert (await awgp("submit", "-a", "reconciler", "-t", "x", "-f", "/nowhere/at/all")).code == 2
    assert (await awgp("show", "00000000-0000-0000-0000-000000000000")).code == 1
    assert (await awgp("nonsense")).code == 2


async def test_decided_from_the_command(awgp: Awgp, acme: Company, work: Work) -> None:
    approval = await work.asked(acme)
    awgp.sign_in(acme.requester)
    refused = await awgp("approve", str(approval.id))
    assert refused.code == 1
    awgp.sign_in(acme.approver)
    waiting = (await awgp("approvals")).ok()
    assert str(approval.id) in waiting
    said = (await awgp("approve", str(approval.work_item_id), "-r", "fits")).ok()
    assert "approved" in said
    again = await awgp("approve", str(approval.id))
    assert again.code == 1
    assert "Already decided" in again.err
    assert "Nothing waits for you." in (await awgp("approvals")).ok()


async def test_rejected_from_the_command(awgp: Awgp, acme: Company, work: Work) -> None:
    await work.asked(acme)
    awgp.sign_in(acme.approver)
    assert "rejected" in (await awgp("reject", "last", "-r", "no")).ok()


async def test_watched_to_the_end(awgp: Awgp, acme: Company, work: Work, database: TestDatabase) -> None:
    item = await work.create(acme.requester)
    awgp.sign_in(acme.requester)
    watching = asyncio.create_task(awgp("watch", str(item.id)))
    await asyncio.sleep(1.5)
    with database.admin() as admin:
        admin.execute("update work_items set status = 'succeeded', cost_nano = 5000000, ended_at = now()")
    said = await watching
    assert "asked reconciler" in said.ok()
    assert "succeeded, cost 0.005 USD" in said.out
    with database.admin() as admin:
        admin.execute("update work_items set status = 'failed', reason = 'it broke'")
    ended = await awgp("watch", str(item.id))
    assert ended.code == 3
    assert "failed: it broke" in ended.out
    events = [json.loads(line) for line in (await awgp("events", str(item.id), "--json")).ok().splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert "asked reconciler" in (await awgp("events", "last", "--follow")).ok()
    assert (await awgp("events", "last", "--after", str(len(events)))).ok() == ""
    assert "0 calls" in (await awgp("costs", "last")).ok()


async def test_halted_and_lifted(awgp: Awgp, acme: Company) -> None:
    awgp.sign_in(acme.admin)
    assert "Nothing is halted." in (await awgp("halts")).ok()
    assert "Halted" in (await awgp("halt", "assistant", "-a", "reconciler", "-r", "odd")).ok()
    assert "odd" in (await awgp("halts")).ok()
    assert "Lifted" in (await awgp("lift", "assistant", "-a", "reconciler")).ok()
    assert (await awgp("halt", "everything")).code == 1
    assert (await awgp("halt", "tenant", "--tenant", "globex")).code == 1


async def test_prices_listed_and_shown(awgp: Awgp, acme: Company, db: Database) -> None:
    awgp.sign_in(acme.requester)
    assert "none is let through" in (await awgp("prices", "list", "a/")).ok()
    at = await rate_cards.moment(db)
    for output in (2_000_000_000, 2_500_000_001):
        card = RateCard(model="a/[x]:free", effective_from=at, source="a test", input=150_000_000, output=output)
        await rate_cards.add(db, [card])
    listed = (await awgp("prices", "list", "X")).ok()
    assert "a/[x]:free in 0.15 out 2.500000001" in listed
    shown = (await awgp("prices", "show", "a/[x]:free")).ok()
    assert shown.index("version 2") < shown.index("version 1")
    assert (await awgp("prices", "show", "a/none")).code == 1


async def test_the_trail_verified_and_written_out(
    awgp: Awgp, acme: Company, tmp_path: Path, database: TestDatabase
) -> None:
    awgp.sign_in(acme.auditor)
    assert "whole" in (await awgp("audit", "verify")).ok()
    (await awgp("audit", "export", str(tmp_path / "audit.jsonl"))).ok()
    assert len((tmp_path / "audit.jsonl").read_text().splitlines()) > 3
    assert "was" in (await awgp("audit", "list")).ok()
    with database.admin() as admin:
        admin.execute("set session_replication_role = replica")
        admin.execute("update audit_events set summary = 'nothing' where seq = 2 and tenant_id = %s", (acme.id,))
    broken = await awgp("audit", "verify")
    assert broken.code == 1
    assert "BROKEN" in broken.out


async def test_without_a_token_and_without_an_api(awgp: Awgp, acme: Company) -> None:
    nobody = await awgp("list")
    assert nobody.code == 5
    assert "awgp token --user" in nobody.err
    stale = awgp.client.issuer.token(acme.requester, exp=1)
    expired = await awgp("list", AWGP_TOKEN=stale)
    assert expired.code == 5
    assert "expired" in expired.err
    away = await awgp("whoami", AWGP_TOKEN=stale, AWGP_API_URL=f"http://127.0.0.1:{free_port()}")
    assert away.code == 4
    assert "make up" in away.err


async def test_the_doctor_says_what_is_wrong_and_what_mends_it(awgp: Awgp, acme: Company) -> None:
    wrong = await awgp("doctor")
    assert wrong.code == 1
    assert "awgp token --user" in wrong.out
    awgp.sign_in(acme.admin)
    assert "Everything is as it should be." in (await awgp("doctor")).ok()
    secret = awgp.data / "secrets" / "cli" / "awgp_x"
    secret.parent.mkdir(parents=True)
    secret.write_text("x")
    secret.chmod(0o644)
    loose = await awgp("doctor")
    assert loose.code == 1
    assert "chmod" in loose.out
    away = await awgp("doctor", AWGP_API_URL=f"http://127.0.0.1:{free_port()}")
    assert away.code == 1
    assert "make up" in away.out


@pytest.fixture
async def dev_issuer(awgp: Awgp) -> AsyncIterator[DevIssuer]:
    port = free_port()
    key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    alice = DevUser(user="alice", name="Alice Adler", tenant="acme", email="alice@example.com", roles=("requester",))
    served = DevIssuer(issuer="x", audience="awgp", key_pem=key, password="p", users={"alice": alice})
    runner = web.AppRunner(served.app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    folder = awgp.data / "secrets" / "cli"
    folder.mkdir(parents=True, mode=0o700)
    password = folder / "awgp_dev_issuer_password"
    password.touch(mode=0o600)
    password.write_text("p\n")
    (awgp.data / "config.env").write_text(f"AWGP_DEV_ISSUER_PORT={port}\n")
    yield served
    await runner.cleanup()


async def test_a_token_is_had_and_kept_for_its_owner_alone(awgp: Awgp, dev_issuer: DevIssuer) -> None:
    assert "alice" in (await awgp("token", "--user", "alice", "--acr", "2")).ok()
    kept = awgp.data / "cli" / "alice.token"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    claims: dict[str, Any] = tokens.claims_of(kept.read_text())
    assert (claims["acr"], claims["groups"]) == ("2", ["/tenants/acme"])
    assert (await awgp("token", "--user", "alice", "--print")).ok().count(".") == 2
    unknown = await awgp("token", "--user", "mallory")
    assert unknown.code == 1
    assert "alice" in unknown.err
