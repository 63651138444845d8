from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from models.domain.approval import Verdict
from models.domain.errors import AlreadyDecided, AwgpError, Conflict, InvalidInput, NotFound
from models.domain.principal import Principal, PrincipalKind, Role
from models.services import approvals, lifecycle
from models.services.ids import new_id
from models.storage.db import Database
from models.tables.work import ApprovalRow
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.work import Work, asked_about, control


async def decide(
    db: Database, who: Principal, approval: ApprovalRow, verdict: Verdict = Verdict.APPROVE, **more: Any
) -> ApprovalRow:
    given: dict[str, Any] = {"reason": "seen and understood", **more}
    return await approvals.decide(db, who, None, approval.id, verdict=verdict, **given)


async def code_of(attempt: Any) -> str:
    try:
        await attempt
    except AwgpError as refusal:
        return str(refusal.extra.get("code", refusal.type))
    return "allowed"


async def audited(db: Database, company: Company, kind: str) -> list[dict[str, Any]]:
    async with db.tenant_session(company.id) as session:
        statement = text("select data from audit_events where kind = :kind order by seq")
        return list((await (await session.connection()).execute(statement, {"kind": kind})).scalars())


async def status_of(db: Database, company: Company, approval_id: UUID) -> str:
    async with db.tenant_session(company.id) as session:
        return (await approvals.outcome(session, approval_id)).status


def outlast(database: TestDatabase, approval: ApprovalRow) -> None:
    with database.admin() as admin:
        admin.execute("update approvals set expires_at = now() - interval '1 second' where id = %s", (approval.id,))


async def test_opening_asks_once_and_moves_the_item(db: Database, acme: Company, work: Work) -> None:
    approval = await work.asked(acme)
    async with db.tenant_session(acme.id) as session:
        again = await approvals.open_approval(session, control(acme.id), asked_about(approval))
        item = await lifecycle.lock_work_item(session, asked_about(approval))
    assert again.id == approval.id
    assert (item.status, approval.subject_digest) == ("awaiting_approval", item.spec_digest)
    assert (approval.expires_at - approval.created_at).total_seconds() == 86_400
    assert len(await audited(db, acme, "approval.opened")) == 1


async def test_what_goes_on_by_itself_is_not_asked(db: Database, acme: Company, work: Work) -> None:
    with pytest.raises(Conflict, match="by itself"):
        await work.asked(acme, "L1")


async def test_an_approval_stands_at_once_and_everybody_is_told(db: Database, acme: Company, work: Work) -> None:
    approval = await work.asked(acme)
    decided = await decide(db, acme.approver, approval, digest=approval.subject_digest, channel="dashboard")
    assert (decided.status, decided.reason) == ("approved", "seen and understood")
    assert await status_of(db, acme, approval.id) == "approved"
    event = (await audited(db, acme, "approval.decided"))[0]
    assert (event["channel"], event["subject_digest"], event["acr"]) == ("dashboard", approval.subject_digest, "2")
    assert len(await audited(db, acme, "approval.approved")) == 1
    async with db.tenant_session(acme.id) as session:
        kinds = (await (await session.connection()).execute(text("select kind from outbox"))).scalars().all()
    assert {"signal_work_item", "signal_approval"} <= set(kinds)


async def test_one_rejection_is_enough(db: Database, acme: Company, work: Work) -> None:
    approval = await work.asked(acme)
    assert (await decide(db, acme.approver, approval, Verdict.REJECT, reason="no")).status == "rejected"
    assert await code_of(decide(db, acme.second, approval)) == "already_closed"


async def test_who_asked_does_not_decide_and_the_attempt_is_audited(db: Database, acme: Company, work: Work) -> None:
    approval = await work.asked(acme)
    as_approver = acme.requester.model_copy(update={"roles": frozenset({Role.APPROVER})})
    assert await code_of(decide(db, as_approver, approval)) == "own_request"
    owner = acme.owner.model_copy(update={"roles": frozenset({Role.APPROVER})})
    assert await code_of(decide(db, owner, approval)) == "own_request", "the assistant's owner answers for it"
    twin = acme.approver.model_copy(update={"id": new_id(), "subject": "twin", "email": acme.requester.email})
    assert await code_of(decide(db, twin, approval)) == "own_request", "the same human by another account"
    assert [event["code"] for event in await audited(db, acme, "approval.refused")] == ["own_request"] * 3
    assert await status_of(db, acme, approval.id) == "pending"


async def test_a_machine_or_somebody_without_the_role_does_not_decide(db: Database, acme: Company, work: Work) -> None:
    approval = await work.asked(acme)
    machine = acme.approver.model_copy(update={"kind": PrincipalKind.SERVICE})
    assert await code_of(decide(db, machine, approval)) == "not_a_human"
    for nobody in (acme.auditor, acme.admin):
        assert await code_of(decide(db, nobody, approval)) == "role_missing"


async def test_another_company_does_not_even_see_it(db: Database, acme: Company, globex: Company, work: Work) -> None:
    approval = await work.asked(acme)
    for tenant_id in (None, acme.id, globex.id):
        with pytest.raises(NotFound):
            await approvals.decide(db, globex.approver, tenant_id, approval.id, verdict=Verdict.APPROVE)
    with pytest.raises(NotFound):
        async with db.session_for(globex.approver) as session:
            await approvals.read(session, globex.approver, approval.id)


@pytest.mark.parametrize("level", ["L4", "L5"])
async def test_the_highest_levels_are_the_holdings_alone(
    db: Database, holding: Company, acme: Company, work: Work, level: str
) -> None:
    approval = await work.asked(acme, level)
    everything = frozenset(Role)
    for own in (acme.approver, acme.admin, acme.second):
        mighty = own.model_copy(update={"roles": everything})
        assert await code_of(decide(db, mighty, approval)) == "holding_only"
    for other in (holding.admin, holding.auditor, holding.requester):
        assert await code_of(decide(db, other, approval)) == "holding_only"
    assert await status_of(db, acme, approval.id) == "pending"
    decided = await decide(db, holding.approver, approval)
    assert decided.status == ("approved" if level == "L4" else "pending")
    if level == "L5":
        assert await code_of(decide(db, holding.approver, approval)) == "already_voted"
        assert (await decide(db, holding.second, approval)).status == "approved"
    assert all(event["as_holding"] for event in await audited(db, acme, "approval.decided"))


async def test_a_holdings_own_item_is_decided_by_another_of_its_people(
    db: Database, holding: Company, work: Work
) -> None:
    approval = await work.asked(holding, "L4")
    assert (await decide(db, holding.approver, approval)).status == "approved"


async def test_one_human_with_two_accounts_is_no_quorum(
    db: Database, holding: Company, acme: Company, work: Work
) -> None:
    approval = await work.asked(acme, "L5")
    await decide(db, holding.approver, approval)
    twin = holding.second.model_copy(update={"email": holding.approver.email.upper()})  # pyright: ignore
    assert await code_of(decide(db, twin, approval)) == "already_voted"


async def test_sign_in_and_reason_are_asked_for(db: Database, holding: Company, acme: Company, work: Work) -> None:
    approval = await work.asked(acme, "L4")
    weak = holding.approver.model_copy(update={"acr": "1"})
    assert await code_of(decide(db, weak, approval)) == "acr_too_low"
    with pytest.raises(InvalidInput) as refused:
        await decide(db, holding.approver, approval, reason="  ")
    assert refused.value.extra["errors"][0]["where"] == "reason"


async def test_another_digest_is_not_what_was_shown(db: Database, acme: Company, work: Work) -> None:
    approval = await work.asked(acme)
    with pytest.raises(Conflict, match="digest"):
        await decide(db, acme.approver, approval, digest="0" * 64)
    assert await status_of(db, acme, approval.id) == "pending"


async def test_a_decision_race_has_one_winner(db: Database, acme: Company, work: Work) -> None:
    for _ in range(5):
        approval = await work.asked(acme)
        attempts = [
            code_of(decide(db, who, approval, verdict))
            for who, verdict in ((acme.approver, Verdict.APPROVE), (acme.second, Verdict.REJECT)) * 4
        ]
        outcomes = Counter(await asyncio.gather(*attempts))
        assert outcomes["allowed"] == 1
        assert set(outcomes) <= {"allowed", "already_closed"}
    async with db.tenant_session(acme.id) as session:
        connection = await session.connection()
        votes = (await connection.execute(text("select count(*) from decisions"))).scalar()
        ended = (await connection.execute(text(
            "select count(*) from audit_events where kind in ('approval.approved', 'approval.rejected')"
        ))).scalar()  # fmt: skip
    assert (votes, ended) == (5, 5)


async def test_after_its_time_nobody_decides(database: TestDatabase, db: Database, acme: Company, work: Work) -> None:
    approval = await work.asked(acme)
    async with db.tenant_session(acme.id) as session:
        assert (await approvals.expire(session, control(acme.id), approval.id)).status == "pending", "not yet"
    outlast(database, approval)
    with pytest.raises(AlreadyDecided):
        await decide(db, acme.approver, approval)
    async with db.tenant_session(acme.id) as session:
        assert (await approvals.expire(session, control(acme.id), approval.id)).status == "expired"
    assert await code_of(decide(db, acme.approver, approval)) == "already_closed"


async def test_expiry_and_decision_have_one_winner(
    database: TestDatabase, db: Database, acme: Company, work: Work
) -> None:
    async def expire(approval: ApprovalRow) -> str:
        async with db.tenant_session(acme.id) as session:
            return (await approvals.expire(session, control(acme.id), approval.id)).status

    for ahead in (-1, 1, 5, 20):
        approval = await work.asked(acme)
        with database.admin() as admin:
            admin.execute(
                "update approvals set expires_at = clock_timestamp() + %s * interval '1 ms' where id = %s",
                (ahead, approval.id),
            )
        code, _ = await asyncio.gather(code_of(decide(db, acme.approver, approval)), expire(approval))
        await asyncio.sleep(0.03)
        await expire(approval)
        assert await status_of(db, acme, approval.id) == ("approved" if code == "allowed" else "expired")
    decided, expired = [len(await audited(db, acme, f"approval.{kind}")) for kind in ("approved", "expired")]
    assert decided + expired == 4


async def test_what_ended_cannot_be_cancelled_and_what_is_cancelled_is_asked_anew(
    db: Database, acme: Company, work: Work
) -> None:
    first = await work.asked(acme)
    async with db.tenant_session(acme.id) as session:
        assert (await approvals.cancel(session, control(acme.id), first.id, "not needed")).status == "cancelled"
        second = await approvals.open_approval(session, control(acme.id), asked_about(first))
    assert second.id != first.id
    await decide(db, acme.approver, second)
    async with db.tenant_session(acme.id) as session:
        assert (await approvals.cancel(session, control(acme.id), second.id, "late")).status == "approved"


async def test_an_item_that_is_being_cancelled_is_not_decided(db: Database, acme: Company, work: Work) -> None:
    from models.services import work_items

    approval = await work.asked(acme)
    async with db.session_for(acme.requester) as session:
        await work_items.request_cancel(session, acme.requester, asked_about(approval))
    assert await code_of(decide(db, acme.approver, approval)) == "item_ended"


async def test_my_list_is_what_i_may_decide(
    db: Database, holding: Company, acme: Company, globex: Company, work: Work
) -> None:
    low, high = await work.asked(acme, "L3"), await work.asked(acme, "L5")
    other = await work.asked(globex, "L4")
    await decide(db, holding.second, high)

    async def mine(who: Principal, limit: int = 50) -> list[UUID]:
        found: list[UUID] = []
        cursor: str | None = None
        async with db.session_for(who) as session:
            while True:
                page, cursor = await approvals.list_mine(session, who, cursor, limit)
                found += [one.id for one in page]
                if cursor is None:
                    return found

    assert await mine(acme.approver) == [low.id]
    assert set(await mine(holding.approver, limit=1)) == {low.id, high.id, other.id}
    assert set(await mine(holding.second)) == {low.id, other.id}
    for nobody in (acme.requester, acme.auditor, holding.admin, globex.approver):
        assert await mine(nobody) == []


async def test_reading_gives_the_whole_context(db: Database, holding: Company, acme: Company, work: Work) -> None:
    files = [{"path": "in.csv", "sha256": "0" * 64, "size": 3}]
    item = await work.create(acme.requester, "L4", inputs=files, parameters={"a": 1})
    from models.services import assessment

    async with db.tenant_session(acme.id) as session:
        await assessment.assess(session, control(acme.id), item.id)
        approval = await approvals.open_approval(session, control(acme.id), item.id)
    async with db.session_for(holding.approver) as session:
        shown = await approvals.read(session, holding.approver, approval.id)
    assert (shown.company, shown.title, shown.worst_case, shown.may_decide) == (
        "Acme GmbH",
        item.title,
        "0.012 USD",
        True,
    )
    assert [factor.words for factor in shown.factors]
    assert (shown.files[0].path, shown.parameters, shown.subject_digest) == ("in.csv", {"a": 1}, item.spec_digest)
    async with db.session_for(acme.requester) as session:
        seen = await approvals.read(session, acme.requester, approval.id)
    assert (seen.may_decide, seen.refusal_code) == (False, "holding_only")
