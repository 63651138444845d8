"""One call on its way through: admitted, sent, passed back, settled.

A caller that leaves does not end a call: a plain one is waited for (it is billed in full anyway), and a stream is read
on for `DRAIN_SECONDS`, so that its real usage is charged; then it is cut off and charged for what had come.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any, cast

import aiohttp
import structlog

from api.gateway.admission import Admission, Admitted, UnsureHoldError
from api.gateway.exchange import Receive, Scope, Send, answer, bearer, downward, read_body, upward
from api.gateway.refusals import Header, UpstreamAway
from api.gateway.settling import Settling
from api.gateway.sse import StreamMeter, text_of
from api.gateway.upstream import LARGEST_ANSWER, TOTAL_SECONDS, NotSentError, Upstream
from models.domain.errors import InvalidInput
from models.domain.llm import Usage
from models.rules import llm_cost

DRAIN_SECONDS = 15.0
_BROKEN = (aiohttp.ClientError, TimeoutError, OSError)
_CUT = b'data: {"error":{"message":"the upstream broke the stream off","type":"api_error","code":"upstream_cut"}}\n\n'

log = structlog.get_logger("calls")


class Calls:
    """`POST /llm/v1/chat/completions`.

    Args:
        admission: Holds.
        upstream: Answers.
        settling: Charges.
        cap_field: What the upstream calls the output cap that the gateway puts in.
    """

    def __init__(
        self, admission: Admission, upstream: Upstream, settling: Settling, cap_field: str = "max_tokens"
    ) -> None:
        self._admission = admission
        self._upstream = upstream
        self._settling = settling
        self._cap_field = cap_field

    async def complete(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            AwgpError: It is refused; nothing was sent to the caller yet.
        """
        started = time.time()
        claims = await self._admission.who(bearer(scope))
        raw = await read_body(receive)
        body = _parsed(raw)
        asked = llm_cost.read_request(body, len(raw))
        try:
            call = await self._admission.admit(claims, asked, started)
        except UnsureHoldError as error:
            self._settling.aside(self._settling.give_back_unsure(error.admitted))
            raise
        # From here on money is held: whatever happens, the call is settled, also when this task is cancelled.
        work = asyncio.ensure_future(self._execute(call, scope, receive, send, self._request(call, raw, body)))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            work.cancel()
            self._settling.aside(_ended(work))
            raise

    def _request(self, call: Admitted, raw: bytes, body: dict[str, Any]) -> bytes:
        """The request as it goes up: the caller's own bytes, with what must be put in."""
        more: dict[str, Any] = {}
        if call.put_in is not None:
            more[self._cap_field] = call.put_in
        if call.asked.stream and not call.asked.wants_usage:
            options = body.get("stream_options")
            known = cast("dict[str, Any]", options) if isinstance(options, dict) else {}
            more["stream_options"] = {**known, "include_usage": True}
        if not more:
            return raw
        if any(name in body for name in more):
            return json.dumps({**body, **more}, ensure_ascii=False).encode()
        start = raw.index(b"{") + 1
        return raw[:start] + json.dumps(more)[1:-1].encode() + b"," + raw[start:]

    async def _execute(self, call: Admitted, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        try:
            response = await self._upstream.complete(upward(scope["headers"]), body)
        except NotSentError:
            await self._settling.nothing(call, None, "the upstream could not be reached")
            raise
        except (*_BROKEN, asyncio.CancelledError) as error:
            await self._settling.as_held(call, None, f"no answer came: {_name(error)}")
            if isinstance(error, asyncio.CancelledError):
                raise
            raise _no_answer(error) from error
        async with response:
            headers = downward(response.raw_headers)
            headers.append((b"x-awgp-call-id", str(call.call).encode()))
            if call.asked.stream and response.status < 300 and response.content_type == "text/event-stream":
                await _Passing(self._settling, call, response, send).run(receive, headers)
            else:
                await self._plain(call, response, send, headers)

    async def _plain(self, call: Admitted, response: aiohttp.ClientResponse, send: Send, headers: list[Header]) -> None:
        try:
            whole = await _read(response)
        except (*_BROKEN, asyncio.CancelledError) as error:
            await self._settling.as_held(call, response.status, f"the answer was cut: {_name(error)}")
            if isinstance(error, asyncio.CancelledError):
                raise
            raise _no_answer(error) from error
        usage, model, upstream_id = _usage_of(whole)
        if usage is not None:
            cost = await self._settling.used(call, usage, model=model, upstream_id=upstream_id, status=response.status)
            headers.append((b"x-awgp-cost-nano", str(cost).encode()))
        elif response.status >= 300:
            await self._settling.nothing(call, response.status)
            headers.append((b"x-awgp-cost-nano", b"0"))
        else:
            await self._settling.as_held(call, response.status, "the answer names no usage")
            headers.append((b"x-awgp-cost-nano", str(call.held).encode()))
        await answer(send, response.status, headers, whole)


class _Passing:
    """A stream that is passed on."""

    def __init__(self, settling: Settling, call: Admitted, response: aiohttp.ClientResponse, send: Send) -> None:
        self._settling = settling
        self._call = call
        self._response = response
        self._send = send
        self._meter = StreamMeter(hide_usage=not call.asked.wants_usage)
        self._settled = False
        self._gone = False

    async def run(self, receive: Receive, headers: list[Header]) -> None:
        """Pass it on to its end, or to its caller's and a little further."""
        await self._send({"type": "http.response.start", "status": self._response.status, "headers": headers})
        leaving = asyncio.ensure_future(_left(receive))
        words = ""
        try:
            # Also where its caller stays and reads nothing more.
            async with asyncio.timeout(TOTAL_SECONDS) as limit:
                leaving.add_done_callback(lambda task: self._note_gone(task, limit))
                await self._pass()
            words = "" if self._meter.done else "the upstream ended the stream early"
        except asyncio.CancelledError:
            await self._settle("the gateway was told to end")
            raise
        except _BROKEN as error:
            words = "its caller had left" if self._gone else f"the stream was cut: {_name(error)}"
        finally:
            leaving.cancel()
        await self._settle(words)
        if not self._gone:
            rest = self._meter.rest() + (_CUT if words and self._meter.usage is None else b"")
            # One that reads nothing keeps neither the upstream's connection nor this task; the server then hangs up.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self._send({"type": "http.response.body", "body": rest})

    async def _pass(self) -> None:
        async for chunk in self._response.content.iter_any():
            passed = self._meter.feed(chunk)
            if self._meter.done:
                # Before its caller sees the end: the next call finds what this one leaves.
                await self._settle("")
            if passed and not self._gone:
                await self._send({"type": "http.response.body", "body": passed, "more_body": True})

    async def _settle(self, words: str) -> None:
        if self._settled:
            return
        self._settled = True
        meter, status = self._meter, self._response.status
        if meter.usage is not None:
            await self._settling.used(
                self._call, meter.usage, model=meter.model, upstream_id=meter.upstream_id, status=status
            )
        elif words:
            await self._settling.produced(self._call, meter.produced, status, words)
        else:
            await self._settling.as_held(self._call, status, "the stream named no usage")

    def _note_gone(self, leaving: asyncio.Future[None], limit: asyncio.Timeout) -> None:
        if leaving.cancelled():
            return  # the stream has come to its end before
        self._gone = True
        limit.reschedule(asyncio.get_running_loop().time() + DRAIN_SECONDS)


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        body: Any = json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _bad(f"the body is no JSON: {str(error)[:200]}") from error
    if not isinstance(body, dict):
        raise _bad("the body must be a JSON object")
    return cast("dict[str, Any]", body)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. INVARIANT: no name stands in it twice: of two values the upstream may read the other one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"{twice[:64]!r} stands twice in one object")
    return found


def _bad(words: str) -> InvalidInput:
    return InvalidInput(words, errors=[{"where": "body", "what": words}])


async def _read(response: aiohttp.ClientResponse) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        parts.append(chunk)
        size += len(chunk)
        if size > LARGEST_ANSWER:
            raise aiohttp.ClientPayloadError(f"the answer has more than {LARGEST_ANSWER:,} bytes")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _usage_of(whole: bytes) -> tuple[Usage | None, str | None, str | None]:
    if b'"usage"' not in whole:
        return None, None, None
    try:
        told: Any = json.loads(whole)
    except (ValueError, RecursionError):
        return None, None, None
    if not isinstance(told, dict):
        return None, None, None
    fields = cast("dict[str, Any]", told)
    return llm_cost.read_usage(fields.get("usage")), text_of(fields.get("model")), text_of(fields.get("id"))


def _no_answer(error: BaseException) -> UpstreamAway:
    code = "upstream_timeout" if isinstance(error, TimeoutError) else "upstream_cut"
    words = "the upstream broke off before it had answered; it may have worked, so the call is charged at its hold"
    return UpstreamAway(f"{words} ({_name(error)})", code=code)


def _name(error: BaseException) -> str:
    return type(error).__name__


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _ended(work: asyncio.Future[None]) -> None:
    await asyncio.gather(work, return_exceptions=True)
