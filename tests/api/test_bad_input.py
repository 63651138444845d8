"""Bad input: a problem document that says what and where, and nothing written."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest

from tests.api.conftest import Client, RowCounts
from tests.fixtures.companies import Company

GOOD: dict[str, Any] = {"assistant": "reconciler", "title": "Reconcile", "kind": "reconcile", "data_class": "internal"}
SHA = "0" * 64


def _deep(levels: int) -> dict[str, Any]:
    return {"a": _deep(levels - 1)} if levels else {}


# name: (body or raw bytes, further headers, status, where the first fault stands)
BAD: dict[str, tuple[Any, dict[str, str], int, str | None]] = {
    "missing title": ({k: v for k, v in GOOD.items() if k != "title"}, {}, 422, "body.title"),
    "missing kind": ({k: v for k, v in GOOD.items() if k != "kind"}, {}, 422, "body.kind"),
    "empty body": ({}, {}, 422, "body.assistant"),
    "a list": ([], {}, 422, "body"),
    "unknown field": ({**GOOD, "urgent": True}, {}, 422, "body.urgent"),
    "unknown assistant": ({**GOOD, "assistant": "nobody"}, {}, 422, "assistant"),
    "unknown data class": ({**GOOD, "data_class": "secret"}, {}, 422, "body.data_class"),
    "unknown tool": ({**GOOD, "tools": ["rockets"]}, {}, 422, "tools"),
    "kind with spaces": ({**GOOD, "kind": "do it"}, {}, 422, "body.kind"),
    "title of spaces": ({**GOOD, "title": "   "}, {}, 422, "body.title"),
    "title too long": ({**GOOD, "title": "x" * 201}, {}, 422, "body.title"),
    "amount in words": ({**GOOD, "amount": "a lot"}, {}, 422, "body.amount"),
    "amount below zero": ({**GOOD, "amount": "-1 USD"}, {}, 422, "body.amount"),
    "amount as a float": ({**GOOD, "amount": 1.5}, {}, 422, "body.amount"),
    "amount too large": ({**GOOD, "amount": "9999999999 USD"}, {}, 422, "body.amount"),
    "limit above the assistant's": ({**GOOD, "limits": {"wall_seconds": 10_000}}, {}, 422, "limits.wall_seconds"),
    "limit below zero": ({**GOOD, "limits": {"wall_seconds": -1}}, {}, 422, "limits.wall_seconds"),
    "huge number": ({**GOOD, "parameters": {"n": 2**60}}, {}, 422, "body.parameters"),
    "parameters too large": ({**GOOD, "parameters": {"n": "x" * 70_000}}, {}, 422, "body.parameters"),
    "parameters nested": ({**GOOD, "parameters": _deep(60)}, {}, 422, None),
    "NUL in the title": ({**GOOD, "title": "a\0b"}, {}, 422, "body.title"),
    "NUL in a parameter": ({**GOOD, "parameters": {"a": ["x", {"b": "\0"}]}}, {}, 422, "body.parameters.a[1].b"),
    "NUL in a key": ({**GOOD, "parameters": {"\0": 1}}, {}, 422, "body.parameters"),
    "half a surrogate pair": (json.dumps({**GOOD, "title": "\ud800"}).encode(), {}, 422, "body.title"),
    "raw NUL": (b'{"title": "\0"}', {}, 422, "body"),
    "not JSON": (b"{", {}, 422, "body"),
    "NaN": (b'{"parameters": {"a": NaN}}', {}, 422, "body"),
    "not UTF-8": (b'{"title": "\xff"}', {}, 422, "body"),
    "endless digits": (b'{"parameters": {"a": ' + b"9" * 5000 + b"}}", {}, 422, "body"),
    "deep brackets": (b"[" * 100_000 + b"]" * 100_000, {}, 422, "body"),
    "file that was not uploaded": (
        {**GOOD, "inputs": [{"path": "a", "sha256": SHA, "size": 1}]},
        {},
        422,
        "body.inputs[0]",
    ),
    "file outside": ({**GOOD, "inputs": [{"path": "../a", "sha256": SHA, "size": 1}]}, {}, 422, "body.inputs[0].path"),
    "file with NUL": ({**GOOD, "inputs": [{"path": "a\0", "sha256": SHA, "size": 1}]}, {}, 422, "body.inputs[0].path"),
    "digest of capitals": (
        {**GOOD, "inputs": [{"path": "a", "sha256": "A" * 64, "size": 1}]},
        {},
        422,
        "body.inputs[0].sha256",
    ),
    "10 MB": (b'{"title": "' + b"x" * 10_000_000 + b'"}', {}, 413, None),
    "wrong type": (json.dumps(GOOD).encode(), {"Content-Type": "text/plain"}, 415, None),
    "form": (b"title=x", {"Content-Type": "application/x-www-form-urlencoded"}, 415, None),
    "no type": (json.dumps(GOOD).encode(), {"Content-Type": ""}, 415, None),
    "empty key": (GOOD, {"Idempotency-Key": ""}, 400, "header.Idempotency-Key"),
    "key too long": (GOOD, {"Idempotency-Key": "k" * 201}, 422, "Idempotency-Key"),
    "key of umlauts": (GOOD, {"Idempotency-Key": "schlüssel"}, 422, "Idempotency-Key"),
}


@pytest.fixture
async def before(api: Client, acme: Company, row_counts: RowCounts) -> dict[str, int]:
    (await api.get("/v1/me", acme.requester)).ok()
    return row_counts()


async def test_each_bad_request_is_told_what_and_where_and_writes_nothing(
    api: Client, acme: Company, row_counts: RowCounts, before: dict[str, int]
) -> None:
    for name, (body, headers, status, where) in BAD.items():
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(8)} | headers
        answer = await api.call("POST", "/v1/work-items", acme.requester, data=raw, headers=sent)
        assert answer.status == status, (name, answer.body)
        problem = answer.problem(status)
        if where is not None:
            assert problem["errors"][0]["where"] == where, (name, problem)
        assert row_counts() == before, name
    assert row_counts()["work_items"] == 0


async def test_the_key_is_needed_and_stands_once(
    api: Client, acme: Company, before: dict[str, int], row_counts: RowCounts
) -> None:
    missing = (await api.post("/v1/work-items", acme.requester, GOOD)).problem(400)
    assert missing["errors"][0]["where"] == "header.Idempotency-Key"
    token = api.issuer.token(acme.requester)
    twice = [("Authorization", f"Bearer {token}"), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    async with api.session.post(api.url + "/v1/work-items", json=GOOD, headers=twice) as response:
        assert response.status == 422
        assert (await response.json())["errors"][0]["where"] == "header.Idempotency-Key"
    assert row_counts() == before


async def test_a_body_is_not_read_past_its_limit(api: Client, acme: Company) -> None:
    """Chunked, so that no header says how long it is."""
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 100_000_000:
            sent += 65_536
            yield b" " * 65_536

    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    try:
        answer = await api.call("POST", "/v1/work-items", acme.requester, data=endless(), headers=headers)
        answer.problem(413)
    except OSError:
        pass  # the server had answered and hung up while we still sent
    assert sent < 40_000_000, "what is too much is thrown away, and not for ever"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/work-items/%00",
        "/v1/work-items?status=%00",
        "/v1/assistants/a%00b",
        "/v1/audit?subject=%00",
        "/v1/work-items/not-a-uuid",
        "/v1/work-items?limit=0",
        "/v1/work-items?limit=201",
        "/v1/work-items?limit=x",
        "/v1/work-items?status=asleep",
        "/v1/work-items?awaiting=godot",
        "/v1/work-items?cursor=!!",
        "/v1/work-items?cursor=AAAA",
        "/v1/audit?since=yesterday",
        "/v1/audit?cursor=x",
        "/v1/policies/0",
        "/v1/policies/99999999999999999999",
        "/v1/assistants/%ff",
    ],
)
async def test_a_bad_address_is_a_422(api: Client, acme: Company, path: str) -> None:
    from yarl import URL

    who = acme.auditor
    token = api.issuer.token(who)
    url = URL(api.url + path, encoded=True)
    async with api.session.get(url, headers={"Authorization": f"Bearer {token}"}) as response:
        assert response.status == 422, await response.text()
        assert response.headers["Content-Type"] == "application/problem+json"
        assert (await response.json())["errors"]


async def test_what_is_not_there_and_what_cannot_be_done_are_problems_too(api: Client, acme: Company) -> None:
    (await api.get("/v1/nothing", acme.requester)).problem(404)
    (await api.get("/nothing")).problem(404)
    (await api.get("/v1/work-items/", acme.requester)).problem(404)
    answer = await api.call("DELETE", "/v1/work-items", acme.requester)
    answer.problem(405)
    assert "POST" in answer.headers["Allow"] or "GET" in answer.headers["Allow"]
