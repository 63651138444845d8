"""An agent's two ports from the host's side: real sockets, a real server outside, and requests of every kind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.sandbox.agent_world import WARRANT, World, world
from tests.sandbox.link_world import until

CHAT = "/llm/v1/chat/completions"
MIB = 1024 * 1024


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def problem(body: bytes) -> dict[str, object]:
    return json.loads(body)


async def test_a_request_goes_out_as_the_run(inside: World) -> None:
    headers = {"Authorization": "Bearer awgp-inside", "X-Awgp-Run-Attempt": "99", "Content-Type": "application/json"}
    status, body = await inside.ask("POST", CHAT, data=b'{"model":"m"}', headers=headers)
    assert (status, json.loads(body)) == (200, {"outside": "yes"})
    arrived = inside.upstream.arrived[0]
    assert (arrived.method, arrived.target, arrived.body) == ("POST", CHAT, b'{"model":"m"}')
    assert arrived.header("Authorization") == [f"Bearer {WARRANT}"]
    assert arrived.header("X-Awgp-Run-Attempt") == ["3"]
    assert arrived.header("Content-Type") == ["application/json"]
    assert arrived.header("Host") == [inside.upstream.url.removeprefix("http://")]


async def test_what_is_not_listed_never_leaves(inside: World) -> None:
    for method, path in [("GET", "/v1/work-items"), ("POST", "/llm/v1/embeddings"), ("GET", CHAT), ("PUT", "/actions")]:
        status, body = await inside.ask(method, path)
        assert (status, problem(body)["title"]) == (404, "Not reachable from inside the sandbox")
    assert not inside.upstream.arrived


@pytest.mark.parametrize(("path", "method", "most"), [(CHAT, "POST", 8 * MIB), ("/actions", "POST", 256 * 1024)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_at_its_limit_goes_out_and_one_more_byte_does_not(
    inside: World, path: str, method: str, most: int, chunked: bool
) -> None:
    async def ask(size: int) -> tuple[int, bytes]:
        data: object = b"x" * size
        if chunked:
            data = pieces(*[b"x" * MIB] * (size // MIB), b"x" * (size % MIB))
        return await inside.ask(method, path, data=data)

    assert (await ask(most))[0] == 200
    assert len(inside.upstream.arrived[0].body) == most
    status, body = await ask(most + 1)
    assert status == 413
    assert str(most) in str(problem(body)["detail"])
    assert len(inside.upstream.arrived) == 1, "a body that is too large was taken for whole outside"


async def test_a_body_where_none_belongs_is_refused(inside: World) -> None:
    for data in (b"x", pieces(b"x")):
        status, body = await inside.ask("GET", "/context", data=data)
        assert (status, problem(body)["detail"]) == (413, "This request takes no body.")


SMUGGLED = b"GET /v1/tenants HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "request_text",
    [
        b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
        b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n" + SMUGGLED,
        b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 44\r\n\r\n" + SMUGGLED,
        b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: +0\r\n\r\n" + SMUGGLED,
        b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n" + SMUGGLED,
        b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
        b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + SMUGGLED,
        b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + SMUGGLED,
        b"POST http://other%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"POST //other%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"POST /llm/%%2e%%2e%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"POST /..%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"POST %s HTTP/1.1\r\nHost: x\r\nX-Note: a\rAuthorization: Bearer forged\r\nContent-Length: 0\r\n\r\n",
        b"POST %s HTTP/1.1\r\nHost: x\r\nX-Note: a\0b\r\nContent-Length: 0\r\n\r\n",
        b"POST %s HTTP/1.1\r\nHost: x\r\nX-Note: \xc4\x8a\r\nContent-Length: 0\r\n\r\n",
        b"POST %s HTTP/9.9\r\nHost: x\r\n\r\n",
        b"POST %s\r\n\r\n",
        b"CONNECT gateway:443 HTTP/1.1\r\nHost: x\r\n\r\n%.0s",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n%.0s",
        b"POST %s HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 20_000 + b"\r\n\r\n",
        b"POST %s HTTP/1.1\r\nHost: x\r\n" + b"X-Many: a\r\n" * 500 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00%.0s",
    ],
)
async def test_what_two_servers_could_read_differently_never_leaves(inside: World, request_text: bytes) -> None:
    text = request_text % CHAT.encode()
    answer = await asyncio.create_task(_raw_and_close(inside, text))
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer[:200]
    assert not inside.upstream.arrived


async def _raw_and_close(inside: World, text: bytes) -> bytes:
    """The connection stays open for what else may come; it is ours to end."""
    reader, writer = await inside.dial()
    writer.write(text)
    try:
        answer = await asyncio.wait_for(reader.read(65536), 20)
        # One request, one answer: what was smuggled behind it is none.
        writer.write(b"GET /llm/v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer += await asyncio.wait_for(reader.read(), 20)
    except ConnectionError:
        answer = b"HTTP/1.1 400 (reset)"
    finally:
        writer.close()
    return answer


async def test_a_folded_header_forges_nothing(inside: World) -> None:
    text = (
        f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nX-Note: a\r\n Authorization: Bearer forged\r\n"
        "Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
    await inside.raw(text.encode())
    for arrived in inside.upstream.arrived:
        assert arrived.header("Authorization") == [f"Bearer {WARRANT}"]


async def test_requests_in_a_row_on_one_connection_stay_apart(inside: World) -> None:
    one = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\none"
    two = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    two += "3\r\ntwo\r\n0\r\n\r\n"
    answer = await inside.raw((one + two).encode())
    assert answer.count(b"HTTP/1.1 200") == 2
    assert [arrived.body for arrived in inside.upstream.arrived] == [b"one", b"two"]


async def test_a_packed_body_and_an_upgrade_are_refused(inside: World) -> None:
    status, _ = await inside.ask("POST", CHAT, data=b"x", headers={"Content-Encoding": "gzip"})
    assert status == 415
    text = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n"
    answer = await _raw_and_close(inside, text.encode())
    assert not answer.startswith(b"HTTP/1.1 101")
    for arrived in inside.upstream.arrived:
        assert not arrived.header("Upgrade")


async def test_a_client_that_asks_before_it_sends_is_told_to(inside: World) -> None:
    reader, writer = await inside.dial()
    writer.write(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n".encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"{}")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_stream_arrives_piece_by_piece(inside: World) -> None:
    said = asyncio.Queue[bytes | None]()

    async def stream(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Set-Cookie": "a=b"})
        await response.prepare(request)
        while (piece := await said.get()) is not None:
            await response.write(piece)
        return response

    inside.upstream.answer = stream
    async with inside.http.post(inside.url(CHAT), data=b"{}") as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
        assert "Set-Cookie" not in answer.headers
        for number in range(5):
            piece = b"data: %d\n\n" % number
            said.put_nowait(piece)
            # The next is not said before this one is here.
            assert await asyncio.wait_for(answer.content.readexactly(len(piece)), 20) == piece
        said.put_nowait(None)
        assert await answer.content.read() == b""


async def test_a_request_goes_out_piece_by_piece(inside: World) -> None:
    heard = asyncio.Queue[bytes]()

    async def listen(request: web.BaseRequest) -> web.StreamResponse:
        async for piece in request.content.iter_any():
            heard.put_nowait(piece)
        return web.Response(status=204)

    inside.upstream.answer = listen

    async def slowly() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d" % number
            assert await asyncio.wait_for(heard.get(), 20) == b"%d" % number

    assert (await inside.ask("POST", CHAT, data=slowly()))[0] == 204


async def test_nobody_reads_ahead_of_a_slow_client(inside: World) -> None:
    written = 0
    most = 64 * MIB

    async def flood(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        while written < most:
            await response.write(b"x" * 65536)
            written += 65536
        return response

    inside.upstream.answer = flood
    async with inside.http.post(inside.url(CHAT), data=b"{}") as answer:
        before = -1
        while before != written or not written:
            before = written
            await asyncio.sleep(0.1)
        assert written < most // 2
        size = 0
        async for piece in answer.content.iter_any():
            size += len(piece)
        assert size == most


async def test_a_client_that_leaves_ends_the_request_outside(inside: World) -> None:
    state = asyncio.Queue[str]()

    async def think(_: web.BaseRequest) -> web.StreamResponse:
        state.put_nowait("asked")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            state.put_nowait("left")
            raise
        raise AssertionError

    inside.upstream.answer = think
    asking = asyncio.create_task(inside.ask("POST", CHAT, data=b"{}"))
    assert await asyncio.wait_for(state.get(), 20) == "asked"
    asking.cancel()
    assert await asyncio.wait_for(state.get(), 20) == "left"


async def test_a_cut_answer_does_not_look_whole(inside: World) -> None:
    async def cut(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    inside.upstream.answer = cut
    with pytest.raises(aiohttp.ClientPayloadError):
        await inside.ask("POST", CHAT, data=b"{}")


async def test_a_refusal_from_outside_comes_in_as_it_is(inside: World) -> None:
    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        await inside.upstream.record(request)
        headers = {"Content-Type": "application/problem+json", "Retry-After": "7", "WWW-Authenticate": "Bearer"}
        return web.Response(status=402, body=b'{"scope":"work item"}', headers=headers)

    inside.upstream.answer = refuse
    async with inside.http.post(inside.url(CHAT), data=b"{}") as answer:
        assert (answer.status, await answer.read()) == (402, b'{"scope":"work item"}')
        assert answer.headers["Retry-After"] == "7"
        assert "WWW-Authenticate" not in answer.headers


async def test_a_redirect_is_not_followed(inside: World) -> None:
    async def elsewhere(request: web.BaseRequest) -> web.StreamResponse:
        await inside.upstream.record(request)
        return web.Response(status=307, headers={"Location": inside.upstream.url + "/v1/tenants"})

    inside.upstream.answer = elsewhere
    async with inside.http.post(inside.url(CHAT), data=b"{}", allow_redirects=False) as answer:
        assert answer.status == 307
    assert len(inside.upstream.arrived) == 1


async def test_nobody_outside_is_said_and_found_again(inside: World) -> None:
    there = inside.upstream.url
    inside.upstreams.__init__()
    status, body = await inside.ask("POST", CHAT, data=b"{}")
    assert (status, problem(body)["title"]) == (503, "The model gateway is not known yet")
    inside.upstreams.offer("http://127.0.0.1:9", "http://127.0.0.1:9/")
    status, body = await inside.ask("GET", "/context")
    assert (status, problem(body)["title"]) == (503, "The control plane does not answer")
    inside.upstreams.offer(there, there)
    assert (await inside.ask("GET", "/context"))[0] == 200


async def test_a_server_that_dies_before_it_answers_is_said(inside: World) -> None:
    async def die(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    inside.upstream.answer = die
    status, body = await inside.ask("POST", CHAT, data=b"{}")
    assert (status, problem(body)["title"]) == (502, "The model gateway does not answer")


async def test_hundreds_at_once_are_served_and_too_many_are_refused(inside: World) -> None:
    gate = asyncio.Event()
    asked = 0

    async def wait(_: web.BaseRequest) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        await gate.wait()
        return web.json_response({})

    inside.upstream.answer = wait
    served = [asyncio.create_task(inside.ask("GET", "/context")) for _ in range(256)]
    await until(lambda: asked == 256, 30)
    status, body = await inside.ask("GET", "/context")
    assert (status, problem(body)["title"]) == (503, "Too many requests at once")
    gate.set()
    assert {status for status, _ in await asyncio.gather(*served)} == {200}
    assert (await inside.ask("GET", "/context"))[0] == 200


async def test_idle_connections_have_an_end_too(tmp_path: Path) -> None:
    async with world(tmp_path, most_connections=4) as inside:
        held = [await inside.dial(name) for name in ("llm.sock", "awgp.sock") * 2]
        answer = await inside.raw(b"")
        assert answer.startswith(b"HTTP/1.1 503")
        for _, writer in held:
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(20):
            while (await inside.ask("GET", "/context"))[0] != 200:
                pass


async def test_a_process_that_starts_again_takes_the_sockets_over(inside: World) -> None:
    await inside.ports.close()
    with pytest.raises(aiohttp.ClientConnectorError):
        await inside.ask("GET", "/context")
    await inside.ports.open(inside.folder)
    assert (await inside.ask("GET", "/context"))[0] == 200


async def test_closing_ends_what_is_under_way(inside: World) -> None:
    asked = asyncio.Event()

    async def think(_: web.BaseRequest) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    inside.upstream.answer = think
    asking = asyncio.create_task(inside.ask("POST", CHAT, data=b"{}"))
    await asyncio.wait_for(asked.wait(), 20)
    await inside.ports.close()
    with pytest.raises(aiohttp.ClientError):
        await asking


@pytest.mark.parametrize("closes", [False, True])
async def test_a_refusal_of_a_body_that_nobody_reads_still_comes_in(inside: World, closes: bool) -> None:
    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        response = web.json_response({"scope": "tenant"}, status=402)
        if closes:
            response.force_close()
        return response

    inside.upstream.answer = refuse
    for _ in range(5):
        assert (await inside.ask("POST", CHAT, data=b"x" * (8 * MIB)))[0] == 402
