"""A work item's life through every real process: asked for, assessed, decided, run in gVisor, audited."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from tests.e2e import work
from tests.e2e.client import Console, ProblemError, User
from tests.e2e.recount import Recount, expect_well
from tests.examples.test_reconcile_expected import FEES, OPEN, PAIN, SETTLED_ON

pytestmark = [pytest.mark.stack, pytest.mark.docker, pytest.mark.timeout(600)]


def check_result(text: bytes) -> None:
    """The result is what a bookkeeper would find (tests/examples says so, not the assistant)."""
    result = json.loads(text)
    assert {match["invoice"]: match["booked"] for match in result["settled"]} == SETTLED_ON
    assert {match["invoice"]: match["fee"] for match in result["settled"] if match["fee"] != "0.00"} == FEES
    assert {invoice["invoice"]: invoice["amount"] for invoice in result["open_invoices"]} == OPEN


async def test_an_l1_job_runs_by_itself(alice: User, recount: Recount) -> None:
    asked = await alice.submit(await work.reconciliation(alice))
    done = await alice.until(asked.id, {"succeeded"}, 90)
    assert (done.risk_level, done.outcome, done.reason) == ("L1", "succeeded", "")
    check_result(await alice.file(asked.id, "result.json"))
    files = await alice.files(asked.id)
    assert {file.path for file in files if file.direction == "out"} == {"report.md", "result.json"}
    assert await alice.file(asked.id, "invoices.csv", "in") == work.content("invoices.csv")
    assert "duplicate F2026/0045" in await alice.output(asked.id)
    assert done.cost_nano is not None
    assert 0 < done.cost_nano <= done.worst_case_nano
    kinds = [event.kind for event in await alice.timeline(asked.id)]
    assert kinds == recount.kinds(asked.id)
    assert (kinds[0], kinds[-1]) == ("work_item.created", "work_item.succeeded")
    assert "approval.opened" not in kinds
    expect_well(recount, [asked.id])


async def test_an_l3_job_waits_for_somebody_else_than_its_requester(alice: User, anton: User, recount: Recount) -> None:
    body = await work.reconciliation(alice, "L3", prepare_payments=True)
    asked = await alice.submit(body)
    waiting = await alice.until(asked.id, {"awaiting_approval"}, 30)
    assert (waiting.risk_level, waiting.needs_approval, waiting.run_id) == ("L3", True, None)
    approval = await anton.approval_of(asked.id)
    assert approval.may_decide
    assert approval.subject_digest == waiting.spec_digest
    assert approval.worst_case_nano == waiting.worst_case_nano > 0

    with pytest.raises(ProblemError) as refused:
        await alice.decide(approval)
    assert refused.value.status == 403
    assert refused.value.content_type == "application/problem+json"
    assert (await alice.item(asked.id)).status == "awaiting_approval"

    decided = await anton.decide(approval, reason="the seven open invoices are due")
    assert decided.status == "approved"
    done = await alice.until(asked.id, {"succeeded"}, 90)
    check_result(await alice.file(done.id, "result.json"))
    payments = await alice.file(done.id, "payments.xml")
    assert PAIN.strip("{}").encode() in payments
    assert payments.count(b"<CdtTrfTxInf>") == len(OPEN)
    with pytest.raises(ProblemError) as late:
        await anton.decide(approval)
    assert late.value.status == 409
    expect_well(recount, [asked.id])


async def test_nobody_decides_on_what_they_asked_for_themselves(console: Console, recount: Recount) -> None:
    # A person who may do both: the holding's admin owns assistants, asks, and is an approver.
    hugo = console.user("hugo")
    slug = await work.sleeper(hugo)
    asked = await hugo.submit(work.item(slug, "L4", parameters={"seconds": 0.5}))
    approval = await console.user("helen").approval_of(asked.id)
    with pytest.raises(ProblemError) as refused:
        await hugo.decide(approval)
    assert (refused.value.status, refused.value.problem["code"]) == (403, "own_request")
    kinds = recount.kinds(asked.id)
    assert "approval.refused" in kinds
    assert "approval.decided" not in kinds
    await console.user("helen").decide(approval, "reject")
    await hugo.until(asked.id, {"rejected"}, 30)
    expect_well(recount, [asked.id])


async def test_a_no_is_final(alice: User, anton: User, recount: Recount) -> None:
    asked = await alice.submit(work.item(await work.sleeper(alice), "L3", parameters={"seconds": 1}))
    approval = await anton.approval_of(asked.id)
    await anton.decide(approval, "reject", "not in this quarter")
    done = await alice.until(asked.id, {"rejected"}, 30)
    assert "not in this quarter" in done.reason
    assert (done.run_id, done.cost_nano or 0) == (None, 0)
    expect_well(recount, [asked.id])


async def test_l4_is_the_holdings_decision_alone(
    console: Console, alice: User, anton: User, helen: User, recount: Recount
) -> None:
    asked = await alice.submit(work.item(await work.sleeper(alice), "L4", parameters={"seconds": 0.5}))
    waiting = await alice.until(asked.id, {"awaiting_approval"}, 30)
    assert waiting.risk_level == "L4"
    approval = await helen.approval_of(asked.id)
    assert approval.tier == "holding"
    assert asked.id not in {each.work_item_id for each in await anton.approvals()}
    with pytest.raises(ProblemError) as refused:
        await anton.decide(approval)
    assert refused.value.status == 403
    with pytest.raises(ProblemError) as weak:
        await console.user("helen", acr="1").decide(approval)
    assert weak.value.status == 403
    assert (await helen.decide(approval, reason="the contract is the one we agreed on")).status == "approved"
    await alice.until(asked.id, {"succeeded"}, 90)
    votes = recount.rows("SELECT * FROM decisions WHERE approval_id = %(approval)s", approval=approval.id)
    assert [(vote["decider_name"], vote["decider_is_holding"], vote["acr"]) for vote in votes] == [
        ("Helen Hartmann", True, "2")
    ]
    expect_well(recount, [asked.id])


async def test_a_dry_run_tells_and_writes_nothing(alice: User, recount: Recount) -> None:
    def rows() -> tuple[int, ...]:
        tables = recount.rows(
            "SELECT (SELECT count(*) FROM work_items WHERE tenant_id = %(tenant)s) AS items,"
            " (SELECT count(*) FROM risk_assessments WHERE tenant_id = %(tenant)s) AS assessed",
            tenant=me.tenant_id,
        )
        return tuple(tables[0].values())

    me = await alice.me()
    body = await work.reconciliation(alice, "L3", prepare_payments=True)
    before = rows()
    told = await alice.dry_run(body)
    assert (told.level, told.needs_approval, told.tier) == ("L3", True, "tenant")
    assert told.worst_case_nano > 0
    assert "payment_is_seen" in {factor.id for factor in told.factors}
    assert rows() == before
    asked = await alice.submit(body)
    waiting = await alice.until(asked.id, {"awaiting_approval"}, 30)
    assert (waiting.risk_level, waiting.risk_score, waiting.worst_case_nano) == (
        told.level,
        told.score,
        told.worst_case_nano,
    )
    await alice.cancel(asked.id)
    await alice.until(asked.id, {"cancelled"}, 30)


async def test_what_another_company_owns_is_not_there(alice: User, anton: User, gina: User, console: Console) -> None:
    asked = await alice.submit(work.item(await work.sleeper(alice), "L3", parameters={"seconds": 1}))
    approval = await anton.approval_of(asked.id)
    item = f"/v1/work-items/{asked.id}"
    greta, georg = console.user("greta"), console.user("georg")

    async def refused(who: User, method: str, path: str, body: dict[str, object] | None = None) -> None:
        with pytest.raises(ProblemError) as error:
            await who.call(method, path, body)
        assert error.value.status == 404, path
        assert error.value.content_type == "application/problem+json"

    for path in (item, f"{item}/timeline", f"{item}/logs", f"{item}/files", f"{item}/files/in/invoices.csv"):
        await refused(gina, "GET", path)
        await refused(greta, "GET", path)
    await refused(gina, "POST", f"{item}/cancel", {"reason": "mine now"})
    await refused(georg, "GET", f"/v1/approvals/{approval.id}")
    for extra in ({}, {"tenant_id": str(asked.tenant_id)}):
        await refused(georg, "POST", f"/v1/approvals/{approval.id}/decision", {"verdict": "approve", **extra})
    await refused(gina, "GET", f"/v1/work-items/{UUID(int=1)}")
    assert (await alice.item(asked.id)).status == "awaiting_approval"
    await alice.cancel(asked.id)
    await alice.until(asked.id, {"cancelled"}, 30)
