"""`python -m bench.gateway.upstream <port>`: answers as fast as Python can, so that it is not what is measured.

Canned bytes: a body of 1 KB, or a stream of 53 chunks, each written in a turn of the loop of its own, as a model's
words come one by one. It parses no more of a request than where it ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import uvloop

from models.domain.scripted import SCRIPTED_MODEL, SCRIPTED_MODELS

CHUNKS = 50
"""Of text; with the role's, the last and the usage's there are 53."""
USAGE = {"prompt_tokens": 60, "completion_tokens": 100, "total_tokens": 160}
_ENVELOPE = {"id": "gen-bench", "created": 1, "model": SCRIPTED_MODEL, "system_fingerprint": "bench-not-a-model"}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def plain() -> bytes:
    """A whole answer, its body 1 KB."""
    def answer(text: str) -> bytes:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return _json({**_ENVELOPE, "object": "chat.completion", "choices": [choice], "usage": USAGE})

    return _whole(answer(("not a model " * 100)[: 1024 - len(answer(""))]))


def stream() -> list[bytes]:
    """The parts of a streamed answer, framed."""

    def event(choices: list[object], **more: object) -> bytes:
        return b"data: " + _json({**_ENVELOPE, "object": "chat.completion.chunk", "choices": choices, **more}) + b"\n\n"

    def delta(**given: str) -> bytes:
        return event([{"index": 0, "delta": given, "finish_reason": None}])

    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    parts = [head + _framed(delta(role="assistant"))]
    parts += [_framed(delta(content=f"word {number:02d} ")) for number in range(CHUNKS)]
    parts.append(_framed(event([{"index": 0, "delta": {}, "finish_reason": "stop"}])))
    parts.append(_framed(event([], usage=USAGE) + b"data: [DONE]\n\n") + b"0\r\n\r\n")
    return parts


PLAIN = plain()
STREAM = stream()
MODELS = _whole(_json({"data": SCRIPTED_MODELS}))
NOTHING = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


class Answers(asyncio.Protocol):
    """One connection, kept alive; one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or self._transport is None:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        length = int(lower[at + 15 : lower.find(b"\r\n", at) if b"\r\n" in lower[at:] else None]) if at >= 0 else 0
        if b"chunked" in lower:
            if not body.endswith(b"0\r\n\r\n"):
                return
        elif len(body) < length:
            return
        self._buffer = b""
        if head.startswith(b"GET "):
            self._transport.write(MODELS if b"/endpoints" not in head else NOTHING)
        elif b'"stream":true' in body or b'"stream": true' in body:
            self._part(0)
        else:
            self._transport.write(PLAIN)

    def _part(self, number: int) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(STREAM[number])
        if number + 1 < len(STREAM):
            self._loop.call_soon(self._part, number + 1)


async def serve(port: int) -> None:
    """Until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
