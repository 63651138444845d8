"""The scripted upstream as a client meets it: a real server on a port of its own."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn

from api.gateway.script import SAID, BadScriptError, example_of, play, tokens
from api.gateway.scripted import ScriptedUpstream
from models.domain.scripted import SCRIPTED_LARGE, SCRIPTED_MODEL
from workers.upstream import refuse_unless_loopback

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "parameters": {
                "type": "object",
                "properties": {
                    "account": {"type": "string"},
                    "limit": {"type": "integer", "minimum": 5},
                    "kind": {"enum": ["open", "closed"]},
                    "where": {"$ref": "#/$defs/Place"},
                    "unneeded": {"type": "string"},
                },
                "required": ["account", "limit", "kind", "where"],
                "$defs": {"Place": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}},
            },
        },
    }
]


def scripted(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    block = f"Please.\n```awgp-script\n{json.dumps(steps)}\n```\n"
    return {"model": SCRIPTED_MODEL, "messages": [{"role": "user", "content": block}], **more}


class Upstream:
    def __init__(self, url: str, log: Path, client: aiohttp.ClientSession) -> None:
        self.url, self.log, self.client = url, log, client

    async def plain(self, body: dict[str, Any]) -> tuple[int, dict[str, Any], Any]:
        async with self.client.post(f"{self.url}/v1/chat/completions", json=body) as answer:
            return answer.status, await answer.json(), answer.headers

    async def lines(self, body: dict[str, Any]) -> list[str]:
        async with self.client.post(f"{self.url}/v1/chat/completions", json={**body, "stream": True}) as answer:
            assert answer.status == 200
            assert answer.content_type == "text/event-stream"
            return (await answer.text()).split("\n\n")[:-1]

    async def chunks(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        lines = await self.lines(body)
        assert lines[0].startswith(": ")
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[1:-1]]

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


async def serving(app: ScriptedUpstream) -> AsyncIterator[str]:
    # Who connects before the server accepts is kept by the listening socket: nobody needs to wait for a start.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="critical", access_log=False))
        task = asyncio.create_task(server._serve(sockets=[listening]))
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        await task


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Upstream]:
    log = tmp_path / "calls"
    async with aiohttp.ClientSession() as client:
        async for url in serving(ScriptedUpstream(log)):
            yield Upstream(url, log, client)


async def test_every_answer_says_that_it_is_not_a_model(upstream: Upstream) -> None:
    status, answer, headers = await upstream.plain(scripted({"text": "Done."}))
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == SAID + "Done."
    assert (answer["model"], answer["system_fingerprint"]) == (SCRIPTED_MODEL, "awgp-scripted-not-a-model")
    assert headers["x-awgp-scripted"] == "not-a-model"
    for chunk in await upstream.chunks(scripted({"text": "Done."})):
        assert chunk["system_fingerprint"] == "awgp-scripted-not-a-model"


async def test_steps_are_counted_by_assistant_messages(upstream: Upstream) -> None:
    body = scripted({"tool": "look_up", "arguments": {"account": "A"}}, {"text": "Second."})
    _, first, _ = await upstream.plain(body)
    call = first["choices"][0]["message"]["tool_calls"][0]
    assert first["choices"][0]["finish_reason"] == "tool_calls"
    assert json.loads(call["function"]["arguments"]) == {"account": "A"}
    body["messages"] += [first["choices"][0]["message"], {"role": "tool", "tool_call_id": call["id"], "content": "7"}]
    _, second, _ = await upstream.plain(body)
    assert second["choices"][0]["message"]["content"] == SAID + "Second."
    body["messages"].append(second["choices"][0]["message"])
    _, third, _ = await upstream.plain(body)
    assert "2 steps" in third["choices"][0]["message"]["content"]


async def test_a_stream_has_the_same_answer_in_pieces(upstream: Upstream) -> None:
    step: dict[str, Any] = {"text": "A rather long answer, in pieces.", "tools": [
        {"tool": "one", "arguments": {"text": "x" * 40}}, {"tool": "two"}]}  # fmt: skip
    body = scripted(step, stream_options={"include_usage": True})
    chunks = await upstream.chunks(body)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == SAID + step["text"]
    arguments: dict[int, str] = {}
    for delta in deltas:
        for call in delta.get("tool_calls", ()):
            arguments[call["index"]] = arguments.get(call["index"], "") + call["function"]["arguments"]
    assert {index: json.loads(text) for index, text in arguments.items()} == {0: {"text": "x" * 40}, 1: {}}
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert chunks[-1]["choices"] == []
    _, plain, _ = await upstream.plain(body)
    assert chunks[-1]["usage"] == plain["usage"]
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_usage_is_streamed_only_where_it_is_asked_for(upstream: Upstream) -> None:
    assert not any("usage" in chunk for chunk in await upstream.chunks(scripted({"text": "x"})))


async def test_a_script_says_what_goes_wrong(upstream: Upstream) -> None:
    status, answer, headers = await upstream.plain(scripted({"status": 429}))
    assert (status, answer["error"]["type"], headers["retry-after"]) == (429, "rate_limit_error", "1")
    with pytest.raises(aiohttp.ClientPayloadError):
        await upstream.lines(scripted({"text": "never whole " * 20, "cut_after": 3}))
    with pytest.raises(aiohttp.ClientPayloadError):
        await upstream.plain(scripted({"text": "never whole", "cut_after": 0}))
    _, answer, _ = await upstream.plain(scripted({"text": "x", "usage": None}))
    assert "usage" not in answer
    _, answer, _ = await upstream.plain(scripted({"text": "x", "usage": {"completion_tokens": 9}}))
    assert answer["usage"]["completion_tokens"] == 9
    log = upstream.logged()
    assert [(line["status"], line["whole"]) for line in log] == [
        (429, False), (200, False), (200, False), (200, True), (200, True)]  # fmt: skip
    assert len({line["id"] for line in log}) == len(log)
    assert log[1]["usage"]["completion_tokens"] == tokens((SAID + "never whole " * 20)[:32])


async def test_a_caller_that_leaves_is_logged_with_what_it_got(upstream: Upstream) -> None:
    body = scripted({"text": "word " * 400, "chunks": 400, "chunk_delay_ms": 5}, stream=True, user="leaver")
    async with upstream.client.post(f"{upstream.url}/v1/chat/completions", json=body) as answer:
        await answer.content.readuntil(b"word")
        answer.close()
    async with asyncio.timeout(20):
        while not (lines := upstream.logged()):  # noqa: ASYNC110 (it is a file that another task writes)
            await asyncio.sleep(0.005)
    (line,) = lines
    assert (line["whole"], line["user"]) == (False, "leaver")
    assert 0 < line["usage"]["completion_tokens"] < 400


async def test_bad_requests_say_where(upstream: Upstream) -> None:
    for body, words in (
        ({"messages": []}, "messages"),
        (scripted({"txet": "x"}), "awgp-script.0.txet"),
        ({"messages": [{"role": "user", "content": "```awgp-script\n{}\n```"}]}, "awgp-script"),
    ):
        status, answer, _ = await upstream.plain(body)
        assert status == 400
        assert words in answer["error"]["message"]
    async with upstream.client.post(f"{upstream.url}/v1/chat/completions", data=b"{") as answer:
        assert answer.status == 400
    async with upstream.client.get(f"{upstream.url}/v1/elsewhere") as answer:
        assert answer.status == 404


async def test_models_are_listed_with_prices(upstream: Upstream) -> None:
    async with upstream.client.get(f"{upstream.url}/v1/models") as answer:
        listed = (await answer.json())["data"]
    assert [model["id"] for model in listed] == [SCRIPTED_MODEL, SCRIPTED_LARGE]
    assert all(float(model["pricing"]["prompt"]) > 0 for model in listed)


async def test_a_key_is_asked_for_where_one_is_set(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as client:
        async for url in serving(ScriptedUpstream(api_key="wanted")):
            for key, status in (("", 401), ("other", 401), ("wanted", 200)):
                async with client.get(f"{url}/v1/models", headers={"authorization": f"Bearer {key}"}) as answer:
                    assert answer.status == status


async def test_cost_is_said_where_it_is_switched_on() -> None:
    async with aiohttp.ClientSession() as client:
        async for url in serving(ScriptedUpstream(with_cost=True)):
            body = scripted({"text": "x", "usage": {"prompt_tokens": 100, "completion_tokens": 10}})
            async with client.post(f"{url}/v1/chat/completions", json=body) as answer:
                assert (await answer.json())["usage"]["cost"] == pytest.approx(0.000065)


def test_without_a_script_the_first_tool_is_called_three_times() -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Go on."}]
    for _ in range(3):
        played = play({"messages": messages, "tools": TOOLS})
        assert played.calls[0]["name"] == "look_up"
        arguments = json.loads(played.calls[0]["arguments"])
        assert arguments == {"account": "example", "limit": 5, "kind": "open", "where": {"x": 1}}
        messages += [{"role": "assistant", "tool_calls": []}, {"role": "tool", "content": "7"}]
    assert play({"messages": messages, "tools": TOOLS}).finish == "stop"
    assert play({"messages": messages[:1], "tools": TOOLS, "tool_choice": "none"}).finish == "stop"


def test_a_schema_that_refers_to_itself_ends() -> None:
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {
        "type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"]}}}  # fmt: skip
    assert example_of(schema, schema) is not None


def test_the_cap_is_kept() -> None:
    played = play(scripted({"text": "word " * 100}, max_tokens=10))
    assert (played.completion_tokens, played.finish) == (10, "length")
    assert tokens(played.text) <= 10
    played = play(scripted({"tool": "a", "arguments": {"x": "y" * 400}}, max_completion_tokens=10))
    assert (played.calls, played.finish) == ((), "length")


def test_tokens_are_the_same_each_time() -> None:
    body = scripted({"text": "größer"}, n=3)
    assert play(body).usage == play(body).usage
    assert play(body).usage == {
        "prompt_tokens": play(body).prompt_tokens,
        "completion_tokens": 3 * tokens(SAID + "größer"),
        "total_tokens": play(body).prompt_tokens + 3 * tokens(SAID + "größer"),
    }


def test_a_structured_answer_keeps_its_shape() -> None:
    assert play(scripted({"text": "{}"}, response_format={"type": "json_object"})).text == "{}"


def test_a_script_in_a_system_message_is_found_too() -> None:
    messages = scripted({"text": "x"})["messages"]
    messages = [{"role": "system", "content": [{"type": "text", "text": messages[0]["content"]}]},
                {"role": "user", "content": "Go on."}]  # fmt: skip
    assert play({"messages": messages}).text == SAID + "x"
    with pytest.raises(BadScriptError, match="messages"):
        play({})


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "example.com", "::"])
def test_the_process_listens_on_loopback_alone(host: str) -> None:
    with pytest.raises(SystemExit, match="loopback"):
        refuse_unless_loopback(host)
    refuse_unless_loopback("127.0.0.1")
    refuse_unless_loopback("::1")
