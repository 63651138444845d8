"""Whatever bytes come to the host's sockets: the host goes on, and nothing that is not listed is asked outside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import struct
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.agent_forwarding import Outside
from sandbox.agent_ports import AgentPorts
from sandbox.agent_upstreams import Upstreams
from sandbox.bridge import Bridge
from sandbox.spec import Limits
from tests.escape.outside import Trusting, trusting_server
from tests.sandbox.guest_double import GuestDouble
from tests.sandbox.specs import folder_in

LIMITS = Limits(output_bytes=4096, artifact_bytes=1000)
BOUNDED = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
LISTED = re.compile(
    r"(GET /llm/v1/models(/[^ ?]*)?|POST /llm/v1/chat/completions"
    r"|(GET|POST) /v1/agent/(actions|questions|mcp|progress|state|context)[^ ]*"
    r"|(PUT|DELETE) /v1/agent/(state|mcp))(\?[^ ]*)? HTTP/1\.1"
)


async def send(folder: Path, name: str, data: bytes, patience: float | None = None) -> None:
    """Sends and reads what comes; without patience it says that it is done, which some servers take for gone."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)
    with contextlib.suppress(OSError, TimeoutError):
        writer.write(data)
        if patience is None:
            writer.write_eof()
        await asyncio.wait_for(reader.read(), patience or 2)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def framed(kind: bytes, payload: bytes, length: int | None) -> bytes:
    return kind + struct.pack(">I", len(payload) if length is None else length) + payload


KINDS = st.sampled_from([b"H", b"O", b"X", b"A", b"D", b"E", b"Z", b"J", b"\0"])
WORDS = st.sampled_from([
    b"{}", b"null", b'{"path":"a","size":1}', b'{"path":"../x","size":0}', b'{"path":"a","sha256":""}', b"[" * 500,
    b'{"exit_code":0,"output_total":0}', b'{"artifacts":0,"skipped":[{"path":"","reason":""}]}', b'{"size":-1}',
    b'{"exit_code":1e999}', b'{"path":"\\ud800","size":0}',
])  # fmt: skip
HEADS = st.builds(lambda *parts: struct.pack(">QBQ", *parts), st.integers(0, 1 << 63), st.integers(0, 3), st.just(1))
FRAMES = st.builds(
    framed, KINDS, WORDS | HEADS | st.binary(max_size=200), st.none() | st.integers(0, (1 << 32) - 1)
)  # fmt: skip


@BOUNDED
@given(st.lists(FRAMES | st.binary(max_size=64), max_size=8))
def test_any_frames(frames: list[bytes]) -> None:
    async def play() -> None:
        with tempfile.TemporaryDirectory() as base:
            folder = folder_in(Path(base))
            bridge = Bridge(folder, LIMITS, lambda: 60.0)
            bridge._penance = 0.0
            await bridge.start()
            try:
                hello = framed(b"H", b'{"pid":1,"guest_version":"1"}', None)
                await send(folder.bridge, "guest.sock", hello + b"".join(frames))
                if not bridge.over_limit.is_set():
                    await (await GuestDouble.connect(folder.bridge / "guest.sock")).close()
                assert bridge.spool.end <= LIMITS.output_bytes
                assert sum(kept.size for kept in bridge.intake.kept.values()) <= LIMITS.artifact_bytes
                names = [path.name for path in folder.artifacts.iterdir()]
                assert all(re.fullmatch(r"[0-9a-f]{64}|incoming\.part", name) for name in names)
            finally:
                await bridge.close()
                bridge.spool.close()

    asyncio.run(play())


METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "get", "CONNECT", "OPTIONS", "G\tET", ""])
TARGETS = st.sampled_from([
    "/llm/v1/models", "/llm/v1/models/a/../b", "/llm/v1/chat/completions", "/actions", "/actions/..", "/context?wait=1",
    "//actions", "/actions/%2e%2e", "*", "http://x/actions", "/actions\\..", "/v1/work-items", "/questions/a#b", "/mcp",
    "/state", "/artifacts/a", "/artifacts/..", "/actions/a b", "/actions/\0",
])  # fmt: skip
HEADERS = st.lists(
    st.sampled_from([
        "Host: x", "Content-Length: 2", "Content-Length: 0", "Content-Length: 2, 2", "Transfer-Encoding: chunked",
        "Transfer-Encoding : chunked", "Authorization: Bearer forged", "Connection: authorization", "X-Awgp-Tenant: t",
        " folded", "Expect: 100-continue", "Upgrade: h2c", "X: \r", "Content-Encoding: gzip", "Cookie: a=b", "Bad",
    ]),
    max_size=5,
)  # fmt: skip
BODIES = st.sampled_from([b"", b"{}", b"2\r\n{}\r\n0\r\n\r\n", b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"])
ENDS = st.sampled_from(["\r\n", "\n", "\r"])


def asked(method: str, target: str, headers: list[str], end: str, body: bytes) -> bytes:
    return (end.join([f"{method} {target} HTTP/1.1", *headers]) + end + end).encode("latin-1") + body


REQUESTS = st.lists(
    st.builds(asked, METHODS, TARGETS, HEADERS, ENDS, BODIES) | st.binary(max_size=80), min_size=1, max_size=3
)


@BOUNDED
@given(st.sampled_from(["llm.sock", "awgp.sock"]), REQUESTS)
def test_any_requests(name: str, requests: list[bytes]) -> None:
    async def play() -> None:
        upstream = Trusting()
        with tempfile.TemporaryDirectory() as base:
            folder = folder_in(Path(base))
            bridge = Bridge(folder, LIMITS, lambda: 60.0)
            async with trusting_server(upstream) as url:
                upstreams = Upstreams(url, url)
                ports = AgentPorts(Outside(upstreams, upstream.warrant, 1), bridge.intake)
                await ports.open(folder.bridge)
                try:
                    await send(folder.bridge, name, b"".join(requests), 0.1)
                    good = b"GET /llm/v1/models/good HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                    await send(folder.bridge, "llm.sock", good, 10)
                    assert "good" in upstream.asked[-1]["line"]
                finally:
                    await ports.close()
                    await upstreams.close()
                    bridge.spool.close()
        for entry in upstream.asked:
            assert LISTED.fullmatch(entry["line"]), entry
            assert entry["bearer"] == "the run's"
            assert not {"cookie", "x-awgp-tenant", "upgrade"} & set(entry["headers"])

    asyncio.run(play())
