"""Asking for work over HTTP: idempotency, reading, cancelling, files, timeline."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any
from uuid import UUID

import pytest

from tests.api.conftest import Client, RecordingFastPath, RowCounts
from tests.fixtures.companies import Company
from tests.fixtures.work import LEVELS, Work

GOOD: dict[str, Any] = {"assistant": "reconciler", "title": "Reconcile September", **LEVELS["L1"]}


async def _create(api: Client, who: Any, key: str = "one", **changes: Any) -> Any:
    return await api.post("/v1/work-items", who, {**GOOD, **changes}, headers={"Idempotency-Key": key})


async def test_created_read_listed_and_its_workflow_hurried(
    api: Client, acme: Company, fast_path: RecordingFastPath
) -> None:
    answer = await _create(api, acme.requester, amount="12.34 USD", parameters={"month": "2026-09"})
    item = answer.ok(201)
    assert answer.headers["Location"] == f"/v1/work-items/{item['id']}"
    assert (item["status"], item["assistant"], item["requester"]) == ("submitted", "reconciler", "Requester of acme")
    assert item["worst_case"].endswith(" USD")
    assert item["worst_case_nano"] > 0
    assert item["facts"]["amount_nano_usd"] == 12_340_000_000
    assert item["parameters"] == {"month": "2026-09"}
    assert (await api.get(answer.headers["Location"], acme.requester)).ok() == item
    page = (await api.get("/v1/work-items", acme.auditor)).ok()
    assert [line["id"] for line in page["items"]] == [item["id"]]
    assert page["next_cursor"] is None
    assert fast_path.told == [("start", acme.id, UUID(item["id"]))]


async def test_twenty_clients_with_one_key_make_one_item(api: Client, acme: Company, row_counts: RowCounts) -> None:
    answers = await asyncio.gather(*(_create(api, acme.requester, "the-same") for _ in range(20)))
    assert {answer.ok(answer.status)["id"] for answer in answers if answer.status in {200, 201}} == {
        answers[0].body["id"]
    }
    assert sorted(answer.status for answer in answers) == [200] * 19 + [201]
    counts = row_counts()
    assert counts["work_items"] == 1
    assert counts["outbox"] == 1, "one start, however often it was asked"


async def test_a_key_is_one_requesters_and_one_requests(api: Client, acme: Company) -> None:
    first = (await _create(api, acme.requester)).ok(201)
    assert (await _create(api, acme.owner)).ok(201)["id"] != first["id"]
    problem = (await _create(api, acme.requester, title="Something else")).problem(422)
    assert problem["type"].endswith("/idempotency-mismatch")
    assert problem["work_item_id"] == first["id"]


async def test_a_dry_run_answers_and_writes_nothing(api: Client, acme: Company, row_counts: RowCounts) -> None:
    (await api.get("/v1/me", acme.requester)).ok()
    before = row_counts()
    found = (await api.post("/v1/work-items/dry-run", acme.requester, {**GOOD, **LEVELS["L3"]})).ok()
    assert found["level"] == "L3"
    assert found["needs_approval"]
    assert found["factors"]
    assert found["who"]
    assert found["worst_case"].endswith(" USD")
    assert row_counts() == before


async def test_pages_follow_one_another(api: Client, acme: Company) -> None:
    made = [(await _create(api, acme.requester, f"k{number}")).ok(201)["id"] for number in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query = "?limit=2" + (f"&cursor={cursor}" if cursor else "")
        page = (await api.get(f"/v1/work-items{query}", acme.requester)).ok()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]
    assert (await api.get("/v1/work-items?status=succeeded", acme.requester)).ok()["items"] == []
    assert len((await api.get(f"/v1/work-items?requester_id={acme.requester.id}", acme.requester)).ok()["items"]) == 5


async def test_cancelling_is_asked_once_and_told(api: Client, acme: Company, fast_path: RecordingFastPath) -> None:
    item = (await _create(api, acme.requester)).ok(201)
    path = f"/v1/work-items/{item['id']}/cancel"
    (await api.post(path, acme.approver, {})).problem(403)
    found = (await api.post(path, acme.requester, {"reason": "not needed"})).ok(202)
    assert found["cancel_requested"]
    assert found["cancel_reason"] == "not needed"
    (await api.post(path, acme.admin, {"reason": "later"})).ok(202)
    assert (await api.get(f"/v1/work-items/{item['id']}", acme.requester)).ok()["cancel_reason"] == "not needed"
    assert ("work_item", acme.id, UUID(item["id"])) in fast_path.told
    events = (await api.get(f"/v1/work-items/{item['id']}/timeline", acme.requester)).ok()["items"]
    kinds = [event["kind"] for event in events]
    assert kinds == ["work_item.created", "access.refused", "work_item.cancel_requested"]


async def test_the_holding_cancels_a_subsidiarys_item(api: Client, acme: Company, holding: Company) -> None:
    item = (await _create(api, acme.requester)).ok(201)
    assert (await api.post(f"/v1/work-items/{item['id']}/cancel", holding.admin, {})).ok(202)["cancel_requested"]


async def test_the_timeline_pages(api: Client, acme: Company) -> None:
    item = (await _create(api, acme.requester)).ok(201)
    await api.post(f"/v1/work-items/{item['id']}/cancel", acme.requester, {})
    path = f"/v1/work-items/{item['id']}/timeline?limit=1"
    first = (await api.get(path, acme.requester)).ok()
    second = (await api.get(f"{path}&after={first['next_after']}", acme.requester)).ok()
    assert [page["items"][0]["kind"] for page in (first, second)] == ["work_item.created", "work_item.cancel_requested"]
    rest = (await api.get(f"{path}&after={second['next_after']}", acme.requester)).ok()
    assert rest == {"items": [], "next_after": None}


async def test_files_go_in_and_are_read_again(api: Client, acme: Company, globex: Company) -> None:
    content = b"date,amount\n2026-09-01,12.34\n" * 20_000
    uploaded = (await api.call("POST", "/v1/files", acme.requester, data=content)).ok(201)
    assert uploaded == {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (await api.call("POST", "/v1/files", acme.requester, data=content)).ok(201)
    item = (await _create(api, acme.requester, inputs=[{"path": "in/statement.csv", **uploaded}])).ok(201)
    base = f"/v1/work-items/{item['id']}/files"
    assert (await api.get(base, acme.requester)).ok()["items"] == [
        {"direction": "in", "path": "in/statement.csv", **uploaded}
    ]
    answer = await api.get(f"{base}/in/in/statement.csv", acme.requester)
    assert answer.ok() == content
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    (await api.get(f"{base}/out/in/statement.csv", acme.requester)).problem(404)
    (await api.get(f"{base}/in/other.csv", acme.requester)).problem(404)
    (await api.get(f"{base}/both/x", acme.requester)).problem(422)


async def test_knowing_a_digest_does_not_open_another_companys_file(
    api: Client, acme: Company, globex: Company
) -> None:
    uploaded = (await api.call("POST", "/v1/files", acme.requester, data=b"acme's secret")).ok(201)
    inputs = [{"path": "stolen", **uploaded}]
    problem = (await _create(api, globex.requester, inputs=inputs)).problem(422)
    assert problem["errors"][0]["where"] == "body.inputs[0]"
    (await api.post("/v1/work-items/dry-run", globex.requester, {**GOOD, "inputs": inputs})).problem(422)
    wrong = [{"path": "a", "sha256": uploaded["sha256"], "size": 1}]
    assert "bytes" in (await _create(api, acme.requester, inputs=wrong)).problem(422)["errors"][0]["what"]


async def test_a_file_too_large_or_empty_is_refused_and_nothing_is_kept(
    api: Client, acme: Company, row_counts: RowCounts
) -> None:
    (await api.get("/v1/me", acme.requester)).ok()
    before = row_counts()
    (await api.call("POST", "/v1/files", acme.requester, data=b"x" * 1_048_577)).problem(413)
    (await api.call("POST", "/v1/files", acme.requester, data=b"")).problem(422)

    async def chunks() -> Any:
        for _ in range(40):
            yield b"x" * 65_536

    (await api.call("POST", "/v1/files", acme.requester, data=chunks())).problem(413)
    assert row_counts() == before


@pytest.mark.parametrize("level", ["L3"])
async def test_decided_over_http(
    api: Client, acme: Company, work: Work, fast_path: RecordingFastPath, level: str
) -> None:
    approval = await work.asked(acme, level)
    mine = (await api.get("/v1/approvals", acme.approver)).ok()["items"]
    assert [one["id"] for one in mine] == [str(approval.id)]
    shown = (await api.get(f"/v1/approvals/{approval.id}", acme.approver)).ok()
    assert shown["may_decide"]
    path = f"/v1/approvals/{approval.id}/decision"
    (await api.post(path, acme.requester, {"verdict": "approve"})).problem(403)
    (await api.post(path, acme.approver, {"verdict": "maybe"})).problem(422)
    (await api.post(path, acme.approver, {"verdict": "approve", "digest": "0" * 64})).problem(409)
    body = {"verdict": "approve", "reason": "fits the invoices", "digest": shown["subject_digest"]}
    stands = (await api.post(path, acme.approver, body)).ok()
    assert stands["status"] == "approved"
    (await api.post(path, acme.second, body)).problem(409)
    assert ("approval", approval.id) in fast_path.told
    assert (await api.get("/v1/approvals", acme.second)).ok()["items"] == []


async def test_the_requesters_own_yes_is_refused_whatever_their_roles(api: Client, acme: Company, work: Work) -> None:
    approval = await work.asked(acme, "L3")
    both = api.issuer.token(acme.requester, realm_access={"roles": ["requester", "approver"]})
    problem = (await api.post(f"/v1/approvals/{approval.id}/decision", both, {"verdict": "approve"})).problem(403)
    assert problem["code"] == "own_request"


async def test_the_holding_alone_decides_a_subsidiarys_l4(
    api: Client, acme: Company, holding: Company, globex: Company, work: Work
) -> None:
    approval = await work.asked(acme, "L4")
    path = f"/v1/approvals/{approval.id}/decision"
    body = {"verdict": "approve", "reason": "checked with the board"}
    assert (await api.post(path, acme.approver, body)).problem(403)["code"] == "holding_only"
    (await api.post(path, globex.approver, body)).problem(404)
    forged = api.issuer.token(globex.approver, realm_access={"roles": ["approver", "holding_approver"]})
    (await api.post(path, forged, body)).problem(404)
    (await api.post(path, forged, {**body, "tenant_id": str(acme.id)})).problem(404)
    own_forged = api.issuer.token(acme.approver, realm_access={"roles": ["holding_approver"]})
    assert (await api.post(path, own_forged, body)).problem(403)["code"] == "holding_only"
    assert (await api.post(path, holding.approver, body)).ok()["status"] == "approved"
    assert (await api.get(f"/v1/approvals/{approval.id}", acme.approver)).ok()["votes"][0]["as_holding"]
