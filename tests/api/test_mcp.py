"""The MCP server, spoken to by the official SDK's own client."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client as McpClient
from mcp.client.streamable_http import streamable_http_client

from models.storage.db import Database
from tests.api.conftest import Client
from tests.api.test_agents import L1, L3, Inside, approve, inside, the_question
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.runs import item_of, tamper
from tests.fixtures.work import Work


@pytest.fixture
async def mine(api: Client, db: Database, work: Work, acme: Company) -> Inside:
    return await inside(api, db, work, acme)


@asynccontextmanager
async def speaking(api: Client, token: str, mode: Any = "auto") -> AsyncGenerator[McpClient]:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        transport = streamable_http_client(f"{api.url}/v1/agent/mcp", http_client=http)
        async with McpClient(transport, mode=mode) as client:
            yield client


async def call(client: McpClient, tool: str, **arguments: Any) -> dict[str, Any]:
    found = await client.call_tool(tool, arguments)
    assert not found.is_error, found.content
    text: Any = found.content[0]
    assert json.loads(text.text) == found.structured_content
    return json.loads(text.text)


async def refused(client: McpClient, tool: str, **arguments: Any) -> str:
    found = await client.call_tool(tool, arguments)
    assert found.is_error
    text: Any = found.content[0]
    return str(text.text)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_tools_are_listed_with_what_they_take(mine: Inside, mode: str) -> None:
    async with speaking(mine.api, mine.token, mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"request_action", "report_progress", "save_artifact", "ask_requester"}
        assert {"kind", "target"} <= set(tools["request_action"].input_schema["required"])
        assert (await call(client, "request_action", **L1))["status"] == "permitted"


async def test_an_action_waits_for_people_and_asking_again_asks_nothing_anew(
    mine: Inside, acme: Company, db: Database
) -> None:
    async with speaking(mine.api, mine.token) as client:
        pending = await call(client, "request_action", **L3, mode="async")
        waiting = asyncio.create_task(call(client, "request_action", **L3))
        shown = await the_question(mine.api, acme)
        assert shown["id"] == pending["approval_id"]
        (await approve(mine.api, acme, pending)).ok()
        answer = await waiting
        assert (answer["id"], answer["status"]) == (pending["id"], "permitted")
        other = await call(client, "request_action", **L3, mode="async", idempotency_key="once more")
        assert other["id"] != pending["id"]


async def test_progress_files_and_questions(mine: Inside, acme: Company) -> None:
    path = f"/v1/work-items/{mine.item.id}"
    async with speaking(mine.api, mine.token) as client:
        assert await call(client, "report_progress", words="half", percent=50) == {"told": True}
        await call(client, "save_artifact", path="report/a.md", text="# Done")
        await call(client, "save_artifact", path="b.bin", content_b64=base64.b64encode(b"\x00\xff").decode())
        await call(client, "save_artifact", path="b.bin", content_b64=base64.b64encode(b"\x01").decode())
        assert (await mine.api.get(f"{path}/files/out/report/a.md", acme.requester)).ok() == b"# Done"
        assert (await mine.api.get(f"{path}/files/out/b.bin", acme.requester)).ok() == b"\x01"
        asked = await call(client, "ask_requester", words="Which?", wait_seconds=0)
        assert asked["answer"] is None
        waiting = asyncio.create_task(call(client, "ask_requester", words="Which?"))
        (await mine.api.post(f"{path}/questions/{asked['id']}/answer", acme.requester, {"answer": "42"})).ok()
        answer = await waiting
        assert (answer["id"], answer["answer"]) == (asked["id"], "42")


async def test_what_is_wrong_is_said_to_the_model(mine: Inside, database: TestDatabase) -> None:
    async with speaking(mine.api, mine.token) as client:
        assert "kind" in await refused(client, "request_action", target="x")
        assert "there is no tool" in await refused(client, "rm")
        assert "effect.connector" in await refused(client, "request_action", **L1, effect={"connector": "x"})
        assert "canonical" in await refused(client, "request_action", **L1, parameters={"n": 2**60})
        for bad in (
            {"path": "../a", "text": "x"},
            {"path": "a"},
            {"path": "a", "text": "x", "content_b64": "eA=="},
            {"path": "a", "content_b64": "?"},
        ):
            assert await refused(client, "save_artifact", **bad)
        tamper(database, "update work_items set spec = jsonb_set(spec, '{limits,artifact_bytes}', '3')")
        assert "more than 3 bytes" in await refused(client, "save_artifact", path="a", text="four")
        tamper(database, "update runs set attempt = 2")
        assert "(attempt)" in await refused(client, "request_action", **L1)


async def test_an_agent_elsewhere_may_ask_and_no_more(
    mine: Inside, acme: Company, globex: Company, db: Database
) -> None:
    made = await mine.api.post(f"/v1/assistants/{acme.assistant_id}/keys", acme.owner, {})
    async with speaking(mine.api, made.ok(201)["key"]) as client:
        answer = await call(client, "request_action", **L1)
        assert (answer["status"], answer["wait_url"]) == ("permitted", f"/v1/actions/{answer['id']}?wait=25")
        for tool, arguments in (
            ("report_progress", {"words": "x"}),
            ("save_artifact", {"path": "a", "text": "x"}),
            ("ask_requester", {"words": "x"}),
        ):
            assert "(no_run)" in await refused(client, tool, **arguments)
    assert (await item_of(db, acme, mine.item.id)).status == "running"


async def test_without_a_credential_nothing_is_spoken(mine: Inside, acme: Company) -> None:
    for token in (None, "x", mine.api.issuer.token(acme.admin)):
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        (await mine.api.post("/v1/agent/mcp", token, body)).problem(401)
    for method in ("GET", "DELETE"):
        (await mine.api.call(method, "/v1/agent/mcp", mine.token)).problem(405)
    too_large = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"x": "y" * 300_000}}
    (await mine.api.post("/v1/agent/mcp", mine.token, too_large)).problem(413)
