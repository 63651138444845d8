"""A bank's portal in one function: takes payments on loopback, from whoever shows the token, each key once."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Receiver:
    """What has arrived.

    Attributes:
        token: What callers must show as a bearer token.
        entered: The payments, by their idempotency key.
        requests: How often it was asked to enter one, by whoever showed the token.
        strangers: How often by somebody who did not.
    """

    token: str
    url: str = ""
    entered: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    requests: int = 0
    strangers: int = 0

    async def take(self, request: web.Request) -> web.Response:
        """Enter a payment, or say that it was."""
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            self.strangers += 1
            return web.json_response({"error": "who are you?"}, status=401)
        self.requests += 1
        key = request.headers.get("Idempotency-Key", "")
        if not key:
            return web.json_response({"error": "no Idempotency-Key"}, status=400)
        payment = self.entered.setdefault(key, json.loads(await request.text()))
        return web.json_response({"entered": True, "reference": f"DEMO-{len(self.entered):04d}", "payment": payment})


@asynccontextmanager
async def receiving(token: str) -> AsyncGenerator[Receiver]:
    """Listen on a free port of loopback while the context lasts."""
    receiver = Receiver(token)
    app = web.Application(client_max_size=65_536)
    app.router.add_post("/payments", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield receiver
    finally:
        await runner.cleanup()
