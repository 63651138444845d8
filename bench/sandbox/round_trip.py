"""HTTP inside → HTTP outside: an agent's keep-alive requests to its loopback, answered by a server out here."""

from __future__ import annotations

import json

from aiohttp import web

from bench.sandbox.cold import verdict
from bench.sandbox.contest import Contest
from sandbox.agent_forwarding import Outside
from sandbox.agent_upstreams import Upstreams

_SMALL, _LARGE = 200, 1 << 20
_PROMISED_MS = {"200 B": 1.5, "1 MiB": 8.0}
_AGENT = """
import http.client, json, statistics, sys, time
found = {}
for name, method, path, times in (("200 B", "GET", "/llm/v1/models", SMALL), ("1 MiB", "POST", "/llm/v1/chat/completions", LARGE)):
    taken = []
    wire = http.client.HTTPConnection("127.0.0.1", 4010)
    for number in range(times + 5):
        began = time.perf_counter()
        wire.request(method, path, body=None if method == "GET" else b"{}", headers={"Content-Type": "application/json"})
        answer = wire.getresponse()
        size = len(answer.read())
        if answer.status != 200: sys.exit(f"{answer.status} for {path}")
        if number >= 5: taken.append((time.perf_counter() - began) * 1000)
    found[name] = [size, statistics.median(taken), statistics.quantiles(taken, n=20)[-1], min(taken)]
print(json.dumps(found))
"""  # noqa: E501


async def round_trips(contest: Contest, times: int) -> None:
    """Prints the table."""
    app = web.Application()
    app.router.add_get("/llm/v1/models", lambda _: _answer(_SMALL))
    app.router.add_post("/llm/v1/chat/completions", lambda _: _answer(_LARGE))
    server = web.AppRunner(app, access_log=None)
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    upstreams = Upstreams(f"http://127.0.0.1:{server.addresses[0][1]}", "http://127.0.0.1:9")
    script = _AGENT.replace("SMALL", str(times)).replace("LARGE", str(max(20, times // 8)))
    try:
        job = contest.job("python3", "-c", script, outside=Outside(upstreams, "a.b.c", 1))
        ran = await contest.execute(job)
    finally:
        await upstreams.close()
        await server.cleanup()
    print(f"\nbridge: a request inside → a server outside → its answer inside, keep-alive, ms; {times} times")
    print(f"{'answer':>8} {'p50':>7} {'p95':>7} {'least':>7}   promise")
    for name, (size, middle, late, least) in json.loads(ran.output).items():
        assert size == (_SMALL if name == "200 B" else _LARGE)
        promised = _PROMISED_MS[name]
        print(f"{name:>8} {middle:>7.2f} {late:>7.2f} {least:>7.2f}   under {promised}: {verdict(middle < promised)}")


async def _answer(size: int) -> web.Response:
    return web.Response(body=b"x" * size, content_type="application/json")
