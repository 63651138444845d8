"""An OpenAI-compatible upstream that plays scripted answers, and says in every one that it is not a model.

It stands where a provider would while no key is set, and in tests: plain and streamed answers, tool calls, failures,
cut connections, usage that never comes. What it has answered is in a log of its own, for recounts.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from api.gateway.script import FINGERPRINT, BadScriptError, Json, Played, compact, pieces, play, tokens, usage_of
from models.domain.scripted import SCRIPTED_MODEL, SCRIPTED_MODELS

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY_BYTES = 16 * 1024 * 1024
COMMENT = b": AWGP SCRIPTED, NOT A MODEL\n\n"
_SAYS_SO = (b"x-awgp-scripted", b"not-a-model")
_ERRORS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class CallLog:
    """One JSON line a call, appended when its answer has ended, however it ended."""

    def __init__(self, path: Path | None) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if path else None

    def add(self, line: Json) -> None:
        """Append a line, in one write."""
        if self._file is not None:
            os.write(self._file, compact(line).encode() + b"\n")


class ScriptedUpstream:
    """The ASGI application.

    Args:
        log_path: Where each call is recorded: {id, model, user, stream, at, status, usage, whole}.
        api_key: Callers must show it; empty: nobody is asked.
        with_cost: Usage carries `cost` in USD, as OpenRouter's does.
    """

    def __init__(self, log_path: Path | None = None, *, api_key: str = "", with_cost: bool = False) -> None:
        self._log = CallLog(log_path)
        self._authorization = f"Bearer {api_key}".encode() if api_key else b""
        self._with_cost = with_cost

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        route = (scope["method"], scope["path"])
        if self._authorization and not hmac.compare_digest(_header(scope, b"authorization"), self._authorization):
            await _fail(send, 401, "this upstream was started with a key: show it as a bearer token")
        elif route == ("GET", "/v1/models"):
            await _answer(send, 200, compact({"data": list(SCRIPTED_MODELS)}).encode())
        elif route == ("POST", "/v1/chat/completions"):
            await self._complete(receive, send)
        else:
            await _fail(send, 404, "there are GET /v1/models and POST /v1/chat/completions")

    async def _complete(self, receive: Receive, send: Send) -> None:
        try:
            body = await _read(receive)
            played = play(body)
        except BadScriptError as error:
            await _fail(send, 400, str(error))
            return
        call = _Call(body, played, self._with_cost)
        try:
            if played.step.delay_ms:
                await asyncio.sleep(played.step.delay_ms / 1000)
            if played.step.status != 200:
                await _fail(send, played.step.status, "the script says so")
            elif body.get("stream"):
                await call.stream(receive, send)
            else:
                await call.plain(send)
        finally:
            self._log.add(call.line())


class _Call:
    """One answer on its way, and what of it was given."""

    def __init__(self, body: Json, played: Played, with_cost: bool) -> None:
        self.id = f"gen-scripted-{uuid4().hex}"
        self._body = body
        self._played = played
        self._created = int(time.time())
        self._at = time.time()
        self._whole = False
        self._usage = played.usage
        if with_cost and self._usage is not None:
            self._usage.setdefault("cost", cost_of(body.get("model"), self._usage))

    def line(self) -> Json:
        """What the log keeps; `usage` is what the answer said, or would have said at the point where it ended."""
        return {
            "id": self.id, "model": self._body.get("model"), "user": self._body.get("user"),
            "stream": bool(self._body.get("stream")), "at": self._at, "status": self._played.step.status,
            "usage": self._usage, "whole": self._whole,
        }  # fmt: skip

    async def plain(self, send: Send) -> None:
        """Send the whole answer as one JSON document."""
        message: Json = {"role": "assistant", "content": self._played.text}
        if self._played.calls:
            message["tool_calls"] = [
                {"id": _call_id(), "type": "function", "function": call} for call in self._played.calls
            ]
        choices = [
            {"index": index, "message": message, "finish_reason": self._played.finish, "logprobs": None}
            for index in range(self._played.choices)
        ]
        answer = self._envelope("chat.completion", choices)
        if self._usage is not None:
            answer["usage"] = self._usage
        whole = compact(answer).encode()
        cut = self._played.step.cut_after is not None
        self._whole = not cut
        await _answer(send, 200, whole, len(whole) // 2 if cut else None)

    async def stream(self, receive: Receive, send: Send) -> None:
        """Send the answer as server-sent events, until its end, its cut, or the caller's leaving."""
        gone = asyncio.ensure_future(receive())
        left = self._played.step.cut_after
        given = ""
        try:
            await _start(send, 200, (b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"))
            await send({"type": "http.response.body", "body": COMMENT, "more_body": True})
            for delta in self._deltas():
                if left == 0 or gone.done():
                    self._usage = usage_of(self._played.prompt_tokens, tokens(given) * self._played.choices)
                    return
                left = None if left is None else left - 1
                if self._played.step.chunk_delay_ms:
                    await asyncio.sleep(self._played.step.chunk_delay_ms / 1000)
                given += _text_in(delta)
                await self._send_chunk(send, delta, None)
            await self._end(send)
            self._whole = True
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone

    async def _end(self, send: Send) -> None:
        await self._send_chunk(send, {}, self._played.finish)
        options = self._body.get("stream_options")
        wanted = isinstance(options, dict) and cast("Json", options).get("include_usage")
        if wanted and self._usage is not None:
            await _event(send, {**self._envelope("chat.completion.chunk", []), "usage": self._usage})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})

    def _deltas(self) -> list[Json]:
        deltas: list[Json] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": piece} for piece in pieces(self._played.text, self._played.step.chunks)]
        for index, call in enumerate(self._played.calls):
            head = {"name": call["name"], "arguments": ""}
            deltas.append({"tool_calls": [{"index": index, "id": _call_id(), "type": "function", "function": head}]})
            for piece in pieces(call["arguments"], None):
                deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        return deltas

    async def _send_chunk(self, send: Send, delta: Json, finish: str | None) -> None:
        for index in range(self._played.choices):
            choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}
            await _event(send, self._envelope("chat.completion.chunk", [choice]))

    def _envelope(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": self.id, "object": kind, "created": self._created, "model": SCRIPTED_MODEL,
            "provider": "scripted (not a model)", "system_fingerprint": FINGERPRINT, "choices": choices,
        }  # fmt: skip


def cost_of(model: Any, usage: Json) -> float:
    """What a call costs by our own list, in USD; a model that is not in it costs what the first one does."""
    listed = {entry["id"]: entry["pricing"] for entry in SCRIPTED_MODELS}
    prices = listed.get(model, SCRIPTED_MODELS[0]["pricing"])
    details = cast("Json", usage.get("prompt_tokens_details") or {})
    cached = int(details.get("cached_tokens") or 0)
    dollars = (
        Decimal(prices["prompt"]) * (int(usage["prompt_tokens"]) - cached)
        + Decimal(prices.get("input_cache_read", prices["prompt"])) * cached
        + Decimal(prices["completion"]) * int(usage["completion_tokens"])
        + Decimal(prices.get("request", "0"))
    )
    return float(dollars)


def _call_id() -> str:
    return f"call_{uuid4().hex[:24]}"


def _text_in(delta: Json) -> str:
    calls = cast("list[Json]", delta.get("tool_calls") or [])
    parts = [cast("Json", call["function"]) for call in calls]
    return str(delta.get("content") or "") + "".join(part.get("name", "") + part["arguments"] for part in parts)


def _header(scope: Message, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")


async def _read(receive: Receive) -> Json:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise BadScriptError(f"the body is larger than {MAX_BODY_BYTES} bytes")
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            break
    try:
        value = json.loads(body)
    except ValueError as error:
        raise BadScriptError(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadScriptError("the body is not a JSON object")
    return cast("Json", value)


async def _start(send: Send, status: int, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [_SAYS_SO, *headers]})


async def _answer(send: Send, status: int, body: bytes, cut_at: int | None = None) -> None:
    """Send a JSON document; with `cut_at` so many bytes of it, then nothing: the server ends the connection."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 429:
        headers.append((b"retry-after", b"1"))
    await _start(send, status, *headers)
    cut = cut_at is not None
    await send({"type": "http.response.body", "body": body[:cut_at] if cut else body, "more_body": cut})


async def _fail(send: Send, status: int, message: str) -> None:
    kind = _ERRORS.get(status, "server_error")
    error = {"message": f"{message} (scripted, not a model)", "type": kind, "code": status}
    await _answer(send, status, compact({"error": error}).encode())


async def _event(send: Send, value: Json) -> None:
    body = b"data: " + compact(value).encode() + b"\n\n"
    await send({"type": "http.response.body", "body": body, "more_body": True})
