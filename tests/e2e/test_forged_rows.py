"""Whoever has got hold of the database can stop work, but what they write is never run."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e import work
from tests.e2e.client import User
from tests.e2e.forging import audited, no_runtime, ran_once
from tests.e2e.recount import Recount, expect_well
from workers.stack.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.docker, pytest.mark.timeout(600)]


def forge_row(stack: Stack, sql: str, **given: Any) -> None:
    """Change a row as superuser, past every grant and policy."""
    with stack.postgres.connect(stack.credentials, "awgp") as attacker:
        changed = attacker.execute(sql.encode(), given).rowcount
        assert changed == 1, sql


def other_claims(token: str) -> str:
    """The same token with other claims under the old signature."""
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    forged = json.dumps({**claims, "max_seconds": 10**6}).encode()
    return ".".join((head, base64.urlsafe_b64encode(forged).decode().rstrip("="), signature))


async def foreign_token(gina: User, recount: Recount) -> str:
    """A warrant of another company, used already: genuine in every byte."""
    asked = await gina.submit(work.item(await work.sleeper(gina), parameters={"seconds": 0.25}))
    await gina.until(asked.id, {"succeeded"}, 90)
    return str(recount.value("SELECT token FROM warrants WHERE work_item_id = %(item)s", item=asked.id))


@pytest.mark.parametrize("forgery", ["altered", "unsigned", "foreign"])
async def test_a_warrant_that_is_not_ours_is_refused_and_minted_anew(
    stack: Stack, alice: User, gina: User, recount: Recount, forgery: str
) -> None:
    foreign = await foreign_token(gina, recount) if forgery == "foreign" else ""
    forged: dict[str, Callable[[str], str]] = {
        "altered": other_claims,
        "unsigned": lambda token: token.rpartition(".")[0] + ".",
        "foreign": lambda _: foreign,
    }
    async with no_runtime(stack, alice, recount) as asked:
        sql = "SELECT id, token FROM warrants WHERE work_item_id = %(item)s AND revoked_at IS NULL"
        (warrant,) = recount.rows(sql, item=asked.id)
        token = forged[forgery](warrant["token"])
        forge_row(stack, "UPDATE warrants SET token = %(token)s WHERE id = %(id)s", token=token, id=warrant["id"])
    await audited(recount, asked.id, "run.claim_refused")
    # The forgery is revoked unclaimed; what is minted anew from the rows runs, once.
    await ran_once(alice, asked.id, recount)
    minted = recount.rows("SELECT * FROM warrants WHERE work_item_id = %(item)s ORDER BY created_at", item=asked.id)
    assert [row["claimed_at"] is not None for row in minted] == [False, True]
    assert minted[0]["revoked_at"] is not None


async def test_a_stale_warrant_is_minted_anew(stack: Stack, alice: User, recount: Recount) -> None:
    async with no_runtime(stack, alice, recount) as asked:
        forge_row(
            stack,
            "UPDATE warrants SET claim_before = now() - interval '1 minute'"
            " WHERE work_item_id = %(item)s AND revoked_at IS NULL",
            item=asked.id,
        )
    await audited(recount, asked.id, "run.claim_refused")
    await ran_once(alice, asked.id, recount)
    assert recount.kinds(asked.id).count("warrant.minted") == 2


async def test_what_was_not_asked_for_does_not_run(stack: Stack, alice: User, recount: Recount) -> None:
    """Somebody changes what would run after it was asked for: the digest in the warrant is another."""
    async with no_runtime(stack, alice, recount) as asked:
        forge_row(
            stack,
            "UPDATE work_items SET spec = jsonb_set(spec, '{command}', '[\"python3\", \"-c\", \"print(1)\"]')"
            " WHERE id = %(item)s",
            item=asked.id,
        )
    await audited(recount, asked.id, "run.claim_refused")
    await audited(recount, asked.id, "warrant.refused")
    done = await alice.until(asked.id, {"failed"}, 60)
    assert "not the one that was asked for" in done.reason
    assert "run.started" not in recount.kinds(asked.id)
    expect_well(recount, [asked.id])
