from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError
from sqlalchemy import text

from models.domain.errors import Conflict, Forbidden, IdempotencyMismatch, InvalidInput, NotFound
from models.domain.money import NanoUsd
from models.domain.work_item import WorkItemStatus
from models.services import approvals, assistants, lifecycle, work_items
from models.services.ids import new_id
from models.services.work_items import Filter, NewWorkItem
from models.storage.db import Database
from sandbox.spec import RunSpec, spec_digest
from tests.fixtures.companies import Company
from tests.fixtures.work import LEVELS, Work, ask, asked_about, control


async def scalar(db: Database, tenant_id: UUID, statement: str, **parameters: Any) -> Any:
    async with db.tenant_session(tenant_id) as session:
        return (await (await session.connection()).execute(text(statement), parameters)).scalar()


async def test_the_same_key_from_twenty_clients_at_once_gives_one_item(db: Database, acme: Company, work: Work) -> None:
    async def once() -> tuple[UUID, bool]:
        async with db.session_for(acme.requester) as session:
            item, created = await work_items.create_work_item(session, acme.requester, ask("L1"), "the-key")
            return item.id, created

    answers = await asyncio.gather(*(once() for _ in range(20)))
    assert len({item for item, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1
    for table, where in (
        ("work_items", ""),
        ("audit_events", " where kind = 'work_item.created'"),
        ("outbox", " where kind = 'start_work_item'"),
    ):
        assert await scalar(db, acme.id, f"select count(*) from {table}{where}") == 1


async def test_a_key_belongs_to_its_requester_and_its_request(db: Database, acme: Company, work: Work) -> None:
    first = await work.create(acme.requester, key="k")
    other = await work.create(acme.owner, key="k")
    assert first.id != other.id
    with pytest.raises(IdempotencyMismatch):
        await work.create(acme.requester, key="k", title="something else")
    assert (await work.create(acme.requester, key="k")).id == first.id


async def test_a_known_key_answers_also_when_the_assistant_is_gone(db: Database, acme: Company, work: Work) -> None:
    first = await work.create(acme.requester, key="k")
    async with db.session_for(acme.owner) as session:
        row = await assistants.read(session, acme.owner, "reconciler")
        body = assistants.AssistantBody(name=row.name, image=row.image, enabled=False)
        await assistants.update(session, acme.owner, row.id, row.version, body)
    assert (await work.create(acme.requester, key="k")).id == first.id
    with pytest.raises(Conflict, match="switched off"):
        await work.create(acme.requester)


async def test_what_is_created_is_pinned(db: Database, acme: Company, work: Work) -> None:
    files = [{"path": "b.csv", "sha256": "0" * 64, "size": 3}, {"path": "a/x.csv", "sha256": "1" * 64, "size": 4}]
    item = await work.create(acme.requester, inputs=files, parameters={"month": "2026-10"}, limits={"wall_seconds": 60})
    spec = RunSpec.model_validate(item.spec)
    assert item.spec_digest == spec_digest(spec)
    assert (spec.work_item_id, spec.tenant_id, spec.limits.wall_seconds) == (item.id, acme.id, 60)
    assert spec.env["AWGP_PARAMETERS"] == '{"month":"2026-10"}'
    assert [file.path for file in spec.inputs] == ["a/x.csv", "b.csv"]
    assert item.policy_version_id == acme.policy_version_id
    assert item.worst_case_nano == 60 * 20_000
    async with db.session_for(acme.requester) as session:
        stored = await work_items.files(session, acme.requester, item.id, "in")
    assert [(file.path, file.size) for file in stored] == [("a/x.csv", 4), ("b.csv", 3)]


async def test_a_dry_run_says_what_creation_would_and_writes_nothing(db: Database, acme: Company) -> None:
    before = await scalar(db, acme.id, "select count(*) from audit_events")
    async with db.session_for(acme.requester) as session:
        answer = await work_items.dry_run(session, acme.requester, ask("L4"))
    assert (answer.level, answer.tier, answer.needs_approval) == ("L4", "holding", True)
    assert answer.worst_case == "0.012 USD"
    assert await scalar(db, acme.id, "select count(*) from work_items") == 0
    assert await scalar(db, acme.id, "select count(*) from audit_events") == before


@pytest.mark.parametrize("level", LEVELS)
async def test_assessment_writes_level_factors_and_the_audit_in_words(
    db: Database, acme: Company, work: Work, level: str
) -> None:
    item = await work.assessed(acme, level)
    assert (item.status, item.risk_level, item.status_seq) == ("assessing", level, 2)
    async with db.tenant_session(acme.id) as session:
        shown = await work_items.view(session, item.id)
        events = await work_items.timeline(session, acme.auditor, item.id)
    assert shown.needs_approval is (level >= "L2")
    assert (shown.assistant, shown.requester, shown.worst_case) == ("reconciler", "Requester of acme", "0.012 USD")
    assert [event.kind for event in events] == ["work_item.created", "work_item.assessing"]
    assert len(events[1].data["factors"]) == len(shown.factors) > 0


async def test_assessing_twice_is_assessing_once(db: Database, acme: Company, work: Work) -> None:
    item = await work.create(acme.requester)

    async def assess() -> None:
        from models.services import assessment

        async with db.tenant_session(acme.id) as session:
            await assessment.assess(session, control(acme.id), item.id)

    await asyncio.gather(*(assess() for _ in range(5)))
    assert await scalar(db, acme.id, "select count(*) from risk_assessments") == 1


@pytest.mark.parametrize(("changes", "where"), [
    ({"assistant": "nobody"}, "assistant"),
    ({"tools": ["mail.send"]}, "tools"),
    ({"limits": {"wall_seconds": 601}}, "limits.wall_seconds"),
    ({"limits": {"pids": 1}}, "limits.pids"),
    ({"parameters": {"x": "y" * 17_000}}, "parameters"),
    ({"inputs": [{"path": "a", "sha256": "0" * 64, "size": 1}] * 2}, "inputs[1].path"),
    ({"inputs": [{"path": p, "sha256": "0" * 64, "size": 1} for p in ("a", "a/b")]}, "inputs[0].path"),
])  # fmt: skip
async def test_bad_input_says_where(
    db: Database, acme: Company, work: Work, changes: dict[str, Any], where: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await work.create(acme.requester, **changes)
    assert refused.value.extra["errors"][0]["where"] == where
    assert await scalar(db, acme.id, "select count(*) from work_items") == 0


@pytest.mark.parametrize("changes", [
    {"title": "a\0b"}, {"title": "   "}, {"title": "\ud800"}, {"parameters": {"a": ["\0"]}}, {"parameters": {"a\0": 1}},
    {"parameters": {"a": 2**53}}, {"parameters": {"a": float("nan")}}, {"parameters": {"a": "\ud800"}},
    {"kind": "Not A Slug"}, {"amount_nano_usd": -1}, {"amount_nano_usd": 1.5}, {"unknown": 1},
    {"inputs": [{"path": "../x", "sha256": "0" * 64, "size": 1}]},
])  # fmt: skip
def test_what_no_database_can_hold_is_no_request(changes: dict[str, Any]) -> None:
    with pytest.raises((ValidationError, UnicodeEncodeError)):
        NewWorkItem.model_validate({"assistant": "reconciler", "title": "x", **LEVELS["L1"], **changes})


@pytest.mark.parametrize("key", ["", "a" * 201, "é", "a\nb", "a\0"])
async def test_a_bad_key_is_refused(acme: Company, db: Database, key: str) -> None:
    with pytest.raises(InvalidInput, match="Idempotency-Key"):
        async with db.session_for(acme.requester) as session:
            await work_items.create_work_item(session, acme.requester, ask(), key)


async def test_the_largest_amount_keeps_every_digit(db: Database, acme: Company, work: Work) -> None:
    item = await work.create(acme.requester, "L3", amount_nano_usd=8_999_999_999_999_999_999)
    assert item.facts["amount_nano_usd"] == 8_999_999_999_999_999_999


async def test_lists_come_in_pages_and_by_filter(
    db: Database, holding: Company, acme: Company, globex: Company, work: Work
) -> None:
    made = [await work.create(acme.requester) for _ in range(5)]
    assessed = await work.assessed(acme, "L3")
    foreign = await work.create(globex.requester)
    async with db.session_for(acme.auditor) as session:
        seen, cursor = [], None
        while True:
            page, cursor = await work_items.list_page(session, acme.auditor, cursor=cursor, limit=2)
            seen += [item.id for item in page]
            if cursor is None:
                break
        assert seen == [assessed.id, *reversed([item.id for item in made])]
        only, _ = await work_items.list_page(session, acme.auditor, Filter(status="assessing", level="L3"))
        assert [item.id for item in only] == [assessed.id]
        assert await work_items.list_page(session, acme.auditor, Filter(awaiting="approval")) == ([], None)
        for wanted in (Filter(status="no"), Filter(level="L9"), Filter(awaiting="godot")):
            with pytest.raises(InvalidInput):
                await work_items.list_page(session, acme.auditor, wanted)
        with pytest.raises(InvalidInput):
            await work_items.list_page(session, acme.auditor, cursor="!!")
        with pytest.raises(NotFound):
            await work_items.read(session, acme.auditor, foreign.id)
    async with db.session_for(holding.auditor) as session:
        everything, _ = await work_items.list_page(session, holding.auditor)
        assert {item.tenant_id for item in everything} == {acme.id, globex.id}


async def test_cancelling_is_asked_once_and_by_those_who_may(
    db: Database, holding: Company, acme: Company, globex: Company, work: Work
) -> None:
    item = await work.create(acme.requester)
    for nobody in (acme.second, acme.auditor, holding.auditor, control(acme.id)):
        with pytest.raises(Forbidden):
            async with work_items.acting_on(db, nobody, item.id) as session:
                await work_items.request_cancel(session, nobody, item.id, "no")
    with pytest.raises(NotFound):
        async with work_items.acting_on(db, globex.admin, item.id) as session:
            await work_items.request_cancel(session, globex.admin, item.id, "no")
    for who in (acme.owner, acme.requester, acme.admin, holding.admin):
        async with work_items.acting_on(db, who, item.id) as session:
            answered = await work_items.request_cancel(session, who, item.id, f"by {who.username}")
        assert answered.cancel_reason == "by acme-owner"
    assert await scalar(db, acme.id, "select count(*) from audit_events where kind = 'work_item.cancel_requested'") == 1
    assert await scalar(db, acme.id, "select count(*) from outbox where kind = 'signal_work_item'") == 1


async def open_run(db: Database, company: Company, item_id: UUID, run_id: UUID, status: str = "running") -> None:
    async with db.tenant_session(company.id) as session:
        await (await session.connection()).execute(
            text("insert into runs (tenant_id, id, work_item_id, status) values (:tenant, :id, :item, :status)"),
            {"tenant": company.id, "id": run_id, "item": item_id, "status": status},
        )


async def test_cancelling_tells_an_open_run(db: Database, acme: Company, work: Work) -> None:
    item = await work.create(acme.requester)
    await open_run(db, acme, item.id, new_id())
    async with db.session_for(acme.requester) as session:
        await work_items.request_cancel(session, acme.requester, item.id)
    assert await scalar(db, acme.id, "select kill_reason from runs") == "cancelled"
    assert await scalar(db, acme.id, "select payload->>'reason' from outbox where kind = 'kill_run'") == "cancelled"


async def test_closing_ends_all_that_hangs_on_the_item(db: Database, acme: Company, work: Work) -> None:
    approval = await work.asked(acme)
    async with db.tenant_session(acme.id) as session:
        closed = await lifecycle.close(
            session, control(acme.id), asked_about(approval), WorkItemStatus.CANCELLED, "not needed"
        )
    assert (closed.status, closed.reason) == ("cancelled", "not needed")
    assert closed.ended_at is not None
    async with db.tenant_session(acme.id) as session:
        assert (await approvals.outcome(session, approval.id)).status == "cancelled"
        again = await lifecycle.close(session, control(acme.id), asked_about(approval), WorkItemStatus.HALTED, "x")
        assert again.status == "cancelled"
    assert await scalar(db, acme.id, "select count(*) from audit_events where kind = 'work_item.cancelled'") == 1


async def test_closing_while_a_run_lives_kills_it_and_keeps_the_item_open(
    db: Database, acme: Company, work: Work
) -> None:
    item = await work.assessed(acme)
    await open_run(db, acme, item.id, new_id())
    async with db.tenant_session(acme.id) as session:
        answered = await lifecycle.close(session, control(acme.id), item.id, WorkItemStatus.HALTED, "terminated")
    assert answered.status == "assessing"
    assert await scalar(db, acme.id, "select kill_reason from runs") == "halted"


async def test_the_end_counts_in_the_record_and_tells_the_webhooks(db: Database, acme: Company, work: Work) -> None:
    item = await work.assessed(acme)
    async with db.tenant_session(acme.id) as session:
        await (await session.connection()).execute(
            text(
                "insert into webhooks (tenant_id, id, url, secret, events, enabled) values"
                " (:t, :a, 'https://a.example.com', 's', '{}', true),"
                " (:t, :b, 'https://b.example.com', 's', '{work_item.succeeded}', true),"
                " (:t, :c, 'https://c.example.com', 's', '{work_item.failed}', false)"
            ),
            {"t": acme.id, "a": new_id(), "b": new_id(), "c": new_id()},
        )
    async with db.tenant_session(acme.id) as session:
        await lifecycle.close(session, control(acme.id), item.id, WorkItemStatus.FAILED, "no image")
    assert await scalar(db, acme.id, "select failed_count from assistants") == 1
    assert await scalar(db, acme.id, "select count(*) from outbox where kind = 'webhook'") == 1


async def test_a_way_that_the_rules_do_not_know_is_refused(db: Database, acme: Company, work: Work) -> None:
    item = await work.create(acme.requester)
    with pytest.raises(Conflict):  # noqa: PT012
        async with db.tenant_session(acme.id) as session:
            locked = await lifecycle.lock_work_item(session, item.id)
            await lifecycle.move(session, control(acme.id), locked, WorkItemStatus.RUNNING, summary="no")


@pytest.mark.parametrize("status", [WorkItemStatus.SUCCEEDED, WorkItemStatus.RUNNING, WorkItemStatus.QUEUED])
async def test_nothing_is_closed_as_what_only_its_run_can_say(
    db: Database, acme: Company, work: Work, status: WorkItemStatus
) -> None:
    item = await work.assessed(acme, "L1")
    async with db.tenant_session(acme.id) as session:
        await (await session.connection()).execute(
            text("insert into runs (tenant_id, id, work_item_id, status) values (:t, :id, :item, 'running')"),
            {"t": acme.id, "id": new_id(), "item": item.id},
        )
    with pytest.raises(Conflict, match=f"not closed as {status.value}"):
        async with db.session_for(control(acme.id)) as session:
            await lifecycle.close(session, control(acme.id), item.id, status, "because I say so")
    async with db.session_for(control(acme.id)) as session:
        run = await work_items.latest_run(session, control(acme.id), item.id)
        assert run is not None
        assert run.kill_reason is None, "a live run is not killed by it either"
        assert (await work_items.read(session, control(acme.id), item.id)).status == item.status


async def test_a_grant_for_models_is_pinned_held_and_only_ever_lowered(db: Database, acme: Company, work: Work) -> None:
    async with db.session_for(acme.owner) as session:
        row = await assistants.read(session, acme.owner, "reconciler")
        llm = assistants.LlmAsked(budget_nano_usd=NanoUsd(2 * 10**9), models=("openai/*",), rpm=10**6)
        body = assistants.AssistantBody(name=row.name, image=row.image, llm=llm, connectors=frozenset({"crm"}))
        changed = await assistants.update(session, acme.owner, row.id, row.version, body)
        assert (changed.llm["budget_nano_usd"], changed.connectors) == (2 * 10**9, ["crm"])
    whole = await work.create(acme.requester, key="whole", limits={"wall_seconds": 60})
    grant = RunSpec.model_validate(whole.spec).llm
    assert grant is not None
    assert (grant.budget_nano_usd, grant.models, grant.rpm) == (2 * 10**9, ("openai/*",), 600)
    assert whole.worst_case_nano == 60 * 20_000 + 2 * 10**9
    lowered = {"wall_seconds": 60, "llm_budget_nano_usd": 7}
    less = await work.create(acme.requester, key="less", limits=lowered)
    assert less.worst_case_nano == 60 * 20_000 + 7
    with pytest.raises(InvalidInput, match=r"limits\.llm_budget_nano_usd"):
        await work.create(acme.requester, key="more", limits={"llm_budget_nano_usd": 2 * 10**9 + 1})


async def test_an_assistant_without_a_grant_has_none(acme: Company, work: Work) -> None:
    item = await work.create(acme.requester, key="none")
    assert RunSpec.model_validate(item.spec).llm is None
    with pytest.raises(InvalidInput, match="has no grant for models"):
        await work.create(acme.requester, key="some", limits={"llm_budget_nano_usd": 1})
