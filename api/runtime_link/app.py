"""The runtimes' endpoint with its health: the link of `sandbox.link.app`, `/healthz` and `/readyz`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from sandbox.link.app import create_link_app
from sandbox.link.hub import RuntimeHub

Probe = Callable[[], Awaitable[object]]


def create_app(hub: RuntimeHub, dependencies: Mapping[str, Probe]) -> web.Application:
    """The whole endpoint.

    Args:
        hub: The connected runtimes.
        dependencies: By name, a call that raises when the dependency is away.
    """

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "runtimes": len(hub.connected())})

    async def readyz(_request: web.Request) -> web.Response:
        found = {name: await _state(probe) for name, probe in dependencies.items()}
        ready = all(state == "ok" for state in found.values())
        body = {"status": "ready" if ready else "not ready", "dependencies": found}
        return web.json_response(body, status=200 if ready else 503)

    app = create_link_app(hub)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    return app


async def _state(probe: Probe) -> str:
    try:
        await probe()
    except Exception as error:
        return f"away: {str(error).splitlines()[0][:200] if str(error) else type(error).__name__}"
    return "ok"
