"""One run's agent goes for another's things: each attempt of the escape suite fails, and its control succeeds.

Every attack answers with what it got, or with nothing. What is refused to a known run is audited.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import OctKey, OKPKey

from models.services import work_items
from models.services.warrant_keys import EdDsaSigner
from models.storage.db import Database
from tests.api.conftest import Answer, Client
from tests.api.test_agents import L1, L3, Inside, inside
from tests.escape.credential_attempts import ATTEMPTS
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.runs import SIGNER, audited, outlive_lease, tamper
from tests.fixtures.work import Work


@dataclass
class Stage:
    """A run that attacks, a neighbour of the same company, and a run of another one."""

    mine: Inside
    theirs: Inside
    foreign: Inside
    acme: Company
    db: Database
    database: TestDatabase

    def as_(self, token: str) -> Inside:
        return Inside(self.mine.api, self.mine.item, self.mine.caller, token)


@pytest.fixture
async def stage(
    api: Client, db: Database, database: TestDatabase, work: Work, acme: Company, globex: Company
) -> Stage:
    mine, theirs, foreign = [
        await inside(api, db, work, who, f"host {n}") for n, who in enumerate((acme, acme, globex))
    ]
    return Stage(mine, theirs, foreign, acme, db, database)


def got(answer: Answer) -> str:
    """What came of a request; nothing where it was refused in good order."""
    if 400 <= answer.status < 500:
        answer.problem(answer.status)
        return ""
    return f"{answer.status}: {answer.body!r}"[:200]


def claims_of(token: str) -> dict[str, Any]:
    middle = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))


def plain(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


Attack = Callable[[Stage], Awaitable[tuple[str, str]]]
"""Answers with what the attack got, and what its control got."""
ATTACKS: dict[str, Attack] = {}


def attack(carry_out: Attack) -> Attack:
    ATTACKS[f"credentials.{carry_out.__name__}"] = carry_out
    return carry_out


async def _ask(owner: Inside, key: str = "k") -> dict[str, Any]:
    return (await owner.call("POST", "/actions", L1, key)).ok()


async def _both(path: str, thief: Inside, owner: Inside) -> tuple[str, str]:
    return got(await thief.call("GET", path)), got(await owner.call("GET", path))


@attack
async def read_anothers_action(stage: Stage) -> tuple[str, str]:
    return await _both(f"/actions/{(await _ask(stage.theirs))['id']}", stage.mine, stage.theirs)


@attack
async def read_an_action_of_another_tenant(stage: Stage) -> tuple[str, str]:
    return await _both(f"/actions/{(await _ask(stage.foreign))['id']}", stage.mine, stage.foreign)


@attack
async def take_a_permit_by_its_key(stage: Stage) -> tuple[str, str]:
    permitted = await _ask(stage.theirs, "the-key")
    answers = [await _ask(who, "the-key") for who in (stage.mine, stage.theirs)]
    return tuple(answer["id"] if answer["id"] == permitted["id"] else "" for answer in answers)  # pyright: ignore


@attack
async def change_what_was_permitted(stage: Stage) -> tuple[str, str]:
    await _ask(stage.mine)
    other = await stage.mine.call("POST", "/actions", {**L1, "target": "another page"}, "k")
    return got(other), got(await stage.mine.call("POST", "/actions", L1, "k"))


@attack
async def read_anothers_question(stage: Stage) -> tuple[str, str]:
    asked = (await stage.theirs.call("POST", "/questions", {"words": "Which?"}, "q")).ok()
    return await _both(f"/questions/{asked['id']}", stage.mine, stage.theirs)


@attack
async def read_anothers_state(stage: Stage) -> tuple[str, str]:
    (await stage.theirs.call("PUT", "/state", data=b"a secret")).ok()
    return await _both("/state", stage.mine, stage.theirs)


@attack
async def overwrite_anothers_state(stage: Stage) -> tuple[str, str]:
    (await stage.theirs.call("PUT", "/state", data=b"theirs")).ok()
    headers = {"X-Awgp-Run-Id": str(stage.theirs.caller.run_id), "X-Awgp-Work-Item": str(stage.theirs.item.id)}
    (await stage.mine.call("PUT", "/state", data=b"forged", headers=headers)).ok()
    kept = (await stage.theirs.call("GET", "/state")).ok()
    (await stage.theirs.call("PUT", "/state", data=b"new")).ok()
    now = (await stage.theirs.call("GET", "/state")).ok()
    return "" if kept == b"theirs" else repr(kept), "replaced" if now == b"new" else ""


@attack
async def claim_another_attempt(stage: Stage) -> tuple[str, str]:
    answers = [await stage.mine.call("GET", "/context", headers={"X-Awgp-Run-Attempt": n}) for n in ("2", "1")]
    return got(answers[0]), got(answers[1])


async def _by_token(stage: Stage, forged: str, true: str | None = None) -> tuple[str, str]:
    control = stage.as_(true or SIGNER.sign(claims_of(stage.theirs.token)))
    return got(await stage.as_(forged).call("GET", "/context")), got(await control.call("GET", "/context"))


@attack
async def warrant_signed_by_itself(stage: Stage) -> tuple[str, str]:
    own = EdDsaSigner(OKPKey.generate_key("Ed25519").as_pem(private=True).decode())
    return await _by_token(stage, own.sign(claims_of(stage.theirs.token)))


@attack
async def warrant_without_a_signature(stage: Stage) -> tuple[str, str]:
    return await _by_token(stage, f"{plain({'alg': 'none'})}.{plain(claims_of(stage.theirs.token))}.")


@attack
async def warrant_signed_with_the_public_key(stage: Stage) -> tuple[str, str]:
    public = json.loads(SIGNER.public_jwks())["keys"][0]
    claims = json.dumps(claims_of(stage.theirs.token))
    header = {"alg": "HS256", "kid": public["kid"]}
    secret = OctKey.import_key(base64.urlsafe_b64decode(public["x"] + "="))
    return await _by_token(stage, jws.serialize_compact(header, claims, secret, algorithms=["HS256"]))


@attack
async def warrant_with_other_claims(stage: Stage) -> tuple[str, str]:
    head, _, signature = stage.mine.token.split(".")
    return await _by_token(stage, f"{head}.{stage.theirs.token.split('.')[1]}.{signature}")


@attack
async def warrant_to_perform(stage: Stage) -> tuple[str, str]:
    return await _by_token(stage, SIGNER.sign({**claims_of(stage.mine.token), "aud": "effect"}))


@attack
async def decide_its_own_approval(stage: Stage) -> tuple[str, str]:
    asked = (await stage.mine.call("POST", "/actions", {**L3, "mode": "async"}, "k")).ok(202)
    path, body = f"/v1/approvals/{asked['approval_id']}/decision", {"verdict": "approve", "reason": "seen"}
    api = stage.mine.api
    return got(await api.post(path, stage.mine.token, body)), got(await api.post(path, stage.acme.approver, body))


@attack
async def read_as_a_person(stage: Stage) -> tuple[str, str]:
    answers = [await stage.mine.api.get("/v1/work-items", who) for who in (stage.mine.token, stage.acme.auditor)]
    return got(answers[0]), got(answers[1])


async def _after(stage: Stage, change: Callable[[], Awaitable[None]]) -> tuple[str, str]:
    """Before the change it is the control."""
    before = got(await stage.mine.call("POST", "/actions", L1, "before"))
    await change()
    after = got(await stage.mine.call("POST", "/actions", L1, "after"))
    return after, before


@attack
async def after_its_end(stage: Stage) -> tuple[str, str]:
    async def end() -> None:
        tamper(stage.database, "update runs set status = 'ended' where id = %s", stage.mine.caller.run_id)

    return await _after(stage, end)


@attack
async def after_a_later_attempt(stage: Stage) -> tuple[str, str]:
    async def again() -> None:
        tamper(stage.database, "update runs set attempt = 2 where id = %s", stage.mine.caller.run_id)

    return await _after(stage, again)


@attack
async def after_its_lease(stage: Stage) -> tuple[str, str]:
    # A lease is never shortened: what was read of it stays true, so nobody must have asked before.
    assert stage.mine.caller.run_id is not None
    outlive_lease(stage.database, stage.mine.caller.run_id)
    answers = [await who.call("POST", "/actions", L1, "k") for who in (stage.mine, stage.theirs)]
    return got(answers[0]), got(answers[1])


@attack
async def after_a_cancel(stage: Stage) -> tuple[str, str]:
    async def cancel() -> None:
        async with stage.db.session_for(stage.acme.requester) as session:
            await work_items.request_cancel(session, stage.acme.requester, stage.mine.item.id)

    return await _after(stage, cancel)


@attack
async def after_a_halt(stage: Stage) -> tuple[str, str]:
    async def halt() -> None:
        body = {"scope": "tenant", "mode": "kill", "reason": "an attack"}
        (await stage.mine.api.post("/v1/halts", stage.acme.admin, body)).ok()

    return await _after(stage, halt)


@pytest.mark.parametrize("name", [attempt.name for attempt in ATTEMPTS])
async def test_attempt(stage: Stage, name: str) -> None:
    won, control = await ATTACKS[name](stage)
    assert not won
    assert control
    # And the neighbour, of whom nothing was refused, goes on.
    if "halt" not in name:
        (await stage.theirs.call("GET", "/context")).ok()
    refused = await audited(stage.db, stage.acme, "agent.refused")
    assert bool(refused) == name.partition(".")[2].startswith(("after_", "claim_"))


def test_every_named_attempt_is_carried_out() -> None:
    assert set(ATTACKS) == {attempt.name for attempt in ATTEMPTS}
