"""Actions, questions and keys from the command."""

from __future__ import annotations

import json

from models.services import questions
from models.storage.db import Database
from tests.cli.test_awgp import Awgp, awgp
from tests.fixtures.agents import action_of, ask, elsewhere, running
from tests.fixtures.companies import Company
from tests.fixtures.work import Work

__all__ = ["awgp"]


async def test_an_action_is_shown_and_allowed_otherwise_than_asked(
    awgp: Awgp, acme: Company, db: Database, work: Work
) -> None:
    _, caller = await running(db, work, acme)
    asked = await ask(db, caller)
    awgp.sign_in(acme.approver)
    shown = (await awgp("approvals")).ok()
    for words in ("prepare_payment → account 42", "it is due", '{"sum": "12.00"}'):
        assert words in shown
    bad = await awgp("approve", "last", "-r", "less", "--parameters", "{")
    assert bad.code == 2
    assert "JSON" in bad.err
    decided = (await awgp("approve", str(asked.id), "-r", "less", "--parameters", '{"sum": "10.00"}')).ok()
    assert "approved" in decided
    row = await action_of(db, acme, asked.id)
    assert (row.status, row.parameters) == ("edited", {"sum": "10.00"})
    awgp.sign_in(acme.auditor)
    listed = (await awgp("actions", "last", "--user", acme.auditor.username)).ok()
    assert "edited" in listed
    assert str(asked.id) in listed


async def test_an_agent_elsewhere_is_said_to_be(awgp: Awgp, acme: Company, db: Database) -> None:
    asked = await ask(db, elsewhere(acme))
    awgp.sign_in(acme.approver)
    assert "runs elsewhere" in (await awgp("approvals")).ok()
    assert "pending" in (await awgp("actions")).ok()
    (await awgp("reject", str(asked.approval_id), "-r", "no")).ok()
    found = json.loads((await awgp("actions", "--status", "denied", "--json")).ok())
    assert [one["words"] for one in found["items"]] == ["no"]


async def test_a_question_is_answered(awgp: Awgp, acme: Company, db: Database, work: Work) -> None:
    item, caller = await running(db, work, acme)
    async with db.tenant_session(acme.id) as session:
        await questions.ask(session, caller, questions.NewQuestion(words="Which [red]one?"), "q")
    awgp.sign_in(acme.requester)
    assert "Which [red]one?" in (await awgp("questions", str(item.id))).ok()
    assert "that one" in (await awgp("answer", str(item.id), "last", "that one")).ok()
    again = await awgp("answer", str(item.id), "last", "another")
    assert again.code != 0


async def test_keys_are_made_listed_and_revoked(awgp: Awgp, acme: Company) -> None:
    awgp.sign_in(acme.owner)
    made = json.loads((await awgp("assistants", "keys", "create", "reconciler", "--json")).ok())
    assert made["key"].startswith("awgp_ak_")
    shown = (await awgp("assistants", "keys", "list", "reconciler")).ok()
    assert made["prefix"] in shown
    assert made["key"] not in shown
    assert "Revoked" in (await awgp("assistants", "keys", "revoke", "reconciler", made["id"])).ok()
    assert "revoked" in (await awgp("assistants", "keys", "list", "reconciler")).ok()
