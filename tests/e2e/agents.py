"""Agents that call models and ask leave, and the other side at which their effects arrive."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.e2e.client import ProblemError, User
from tests.e2e.work import IMAGE, SMALL

SECRET = "the-receivers-own-token-1f9c"
SECRET_NAME = "receiver-token"
KEEPS_KEYS, TAKES_NO_KEYS = "receiver", "receiver-without-keys"
"""Connectors to the same receiver: one whose other side takes an idempotency key, and one whose does not."""
MODEL = "awgp/scripted"

# As a program of its own would do it, with nothing but the standard library: what fails for want of somebody on the
# other side is tried again, each request under the key that it had. Each execution draws its own nonce.
AGENT = """
import json, os, time, urllib.error, urllib.request, uuid
wanted = json.loads(os.environ["AWGP_PARAMETERS"])
nonce = uuid.uuid4().hex
say = lambda *words: print(*words, nonce, flush=True)

def call(method, url, body=None, key=None):
    headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    for _ in range(400):
        try:
            request = urllib.request.Request(url, data=data, method=method, headers=headers)
            with urllib.request.urlopen(request, timeout=90) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            text = error.read()
            if error.code not in (429, 502, 503, 504):
                return error.code, text.decode()
        except (OSError, ValueError):
            pass
        time.sleep(0.25)
    raise SystemExit("nobody answers")

say("begin")
if "AWGP_DECISIONS" in os.environ:
    decisions = json.load(open(os.environ["AWGP_DECISIONS"]))
    saved = open(os.environ["AWGP_STATE"]).read() if "AWGP_STATE" in os.environ else ""
    say("goes on", repr(saved), *(each["status"] for each in decisions))
script = "```awgp-script\\n" + json.dumps([{"text": "done", "delay_ms": wanted.get("delay_ms", 0)}] * 9) + "\\n```"
for number in range(wanted.get("calls", 0)):
    say("calling")
    body = {"model": "awgp/scripted", "max_tokens": 50, "messages": [{"role": "user", "content": script}]}
    status, answer = call("POST", os.environ["OPENAI_BASE_URL"] + "/chat/completions", body)
    say("called", status)
base = os.environ["AWGP_URL"]
if wanted.get("saves"):
    call("PUT", base + "/state", wanted["saves"])
for number, action in enumerate(wanted.get("actions", [])):
    say("asking")
    status, answer = call("POST", base + "/actions", action, key=f"action-{number}")
    while status == 202:
        status, answer = call("GET", base + "/actions/" + answer["id"] + "?wait=20")
    say("answered", status, answer["status"] if isinstance(answer, dict) else answer)
say("end")
"""

HARMLESS = {"data_class": "public", "reversibility": "reversible", "external_effect": "none"}


def action(connector: str, *, asks: bool, name: str, mode: str = "wait") -> dict[str, Any]:
    """A request for one POST at the receiver; with `asks` people decide, without it is permitted at once."""
    kind = "prepare_payment" if asks else "read"
    effect = {"connector": connector, "method": "POST", "path": f"/effects/{name}", "json": {"name": name}}
    return {"kind": kind, "target": f"effect {name}", "effect": effect, "reason": "a test", "mode": mode, **HARMLESS}


async def agent(owner: User, slug: str = "agent") -> str:
    """Slug of an assistant that calls models and asks leave, as its item's parameters say."""
    body = {
        "slug": slug,
        "name": slug,
        "image": IMAGE,
        "command": ["python3", "-c", AGENT],
        # An effect whose performer was killed is settled a minute after its time is over.
        "limits": {**SMALL, "wall_seconds": 300},
        "llm": {"budget_nano_usd": 50_000_000},
        "connectors": [KEEPS_KEYS, TAKES_NO_KEYS],
    }
    return (await owner.assistant(body)).slug


async def connect(admin: User, receiver: Receiver) -> None:
    """Set up both connectors of a company to this receiver, with a credential from the secret store."""
    await admin.call("PUT", f"/v1/secrets/{SECRET_NAME}", {"value": SECRET})
    for name, header in ((KEEPS_KEYS, "Idempotency-Key"), (TAKES_NO_KEYS, None)):
        config = {
            "base_url": receiver.url,
            "credential": {"secret": SECRET_NAME, "as": "bearer"},
            "idempotency_header": header,
            "allow_private": True,
            "timeout_seconds": 10,
            "external_effect": "none",
        }
        try:
            await admin.call("POST", "/v1/connectors", {"name": name, "kind": "http", "config": config})
        except ProblemError as error:
            if error.status != 409:
                raise
            known = await admin.call("GET", f"/v1/connectors/{name}")
            await admin.call("PUT", f"/v1/connectors/{name}", {"version": known["version"], "config": config})


@dataclass
class Receiver:
    """The other side: an HTTP server that remembers each request, and does what has one key once.

    Attributes:
        url: Where it listens.
        requests: How often each effect was asked for.
        done: How often each was done.
        strangers: Requests without the credential.
    """

    url: str = ""
    requests: Counter[str] = field(default_factory=Counter[str])
    done: Counter[str] = field(default_factory=Counter[str])
    strangers: int = 0
    _keys: set[str] = field(default_factory=set[str])
    _held: dict[str, asyncio.Event] = field(default_factory=dict[str, asyncio.Event])

    def hold(self, name: str) -> None:
        """Let requests for this effect wait for `release`; it is done as they come in."""
        self._held[name] = asyncio.Event()

    def release(self, name: str) -> None:
        """Answer those that wait, and whatever comes."""
        self._held.pop(name, asyncio.Event()).set()

    async def take(self, request: web.Request) -> web.Response:
        """One request for an effect."""
        name = request.match_info["name"]
        if request.headers.get("Authorization") != f"Bearer {SECRET}":
            self.strangers += 1
            return web.json_response({"error": "who are you"}, status=401)
        self.requests[name] += 1
        key = request.headers.get("Idempotency-Key")
        if key is None or key not in self._keys:
            self.done[name] += 1
        if key is not None:
            self._keys.add(key)
        held = self._held.get(name)
        if held is not None:
            await held.wait()
        return web.json_response({"done": name, "authorization": request.headers["Authorization"]})

    @classmethod
    @asynccontextmanager
    async def listening(cls) -> AsyncGenerator[Receiver]:
        """One that listens on a free port of the loopback."""
        receiver = cls()
        app = web.Application()
        app.router.add_post("/effects/{name}", receiver.take)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            assert site._server is not None  # pyright: ignore[reportPrivateUsage]
            receiver.url = "http://{}:{}".format(*site._server.sockets[0].getsockname())  # type: ignore[union-attr]
            yield receiver
        finally:
            for name in list(receiver._held):
                receiver.release(name)
            await runner.cleanup()


@dataclass(frozen=True)
class Course:
    """What an agent's output says of what it did.

    Attributes:
        nonces: One for each execution that said anything.
        words: Its lines without the nonces, in order.
    """

    nonces: tuple[str, ...]
    words: tuple[str, ...]

    @classmethod
    def of(cls, output: str) -> Course:
        """Read an agent's output."""
        nonces = tuple(dict.fromkeys(re.findall(r"\b[0-9a-f]{32}\b", output)))
        lines = [re.sub(r"\s?[0-9a-f]{32}$", "", line) for line in output.splitlines()]
        return cls(nonces, tuple(lines))
