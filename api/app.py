"""The application: routes, the access table, problems, and the guards around them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from api import access, problems
from api.agent_auth import agent
from api.agent_mcp import AgentMcp
from api.auth import SeenPrincipals, caller
from api.body import BodyGuard
from api.deps import Deps
from api.routes import (
    actions,
    approvals,
    assistants,
    audit,
    budgets,
    connectors,
    downloads,
    events,
    files,
    halts,
    health,
    logs,
    people,
    policies,
    prices,
    runtimes,
    work_items,
)
from api.routes import agent as agent_routes
from api.schemas.fields import Problem
from models.services.noise import NoiseMeter

ROUTERS = (
    health.router, people.router, assistants.router, files.router, work_items.router, logs.router, downloads.router,
    events.router, approvals.router, policies.router, connectors.router, budgets.router, halts.router, audit.router,
    runtimes.router, prices.router, actions.router, agent_routes.router, agent_routes.elsewhere,
)  # fmt: skip
DESCRIPTION = """The control plane's public API.

Send `Authorization: Bearer <JWT>` of the configured OpenID Connect issuer. Every error is a problem document
(RFC 9457, `application/problem+json`). What another tenant owns answers 404. Money is USD: text for people, and
integer nano-dollars in the fields that end in `_nano`. Lists take `cursor` and `limit`; a null `next_cursor` is the
end.
"""


def routes() -> list[APIRoute]:
    """Every route of the API."""
    return [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]


def create_app(deps: Deps) -> FastAPI:
    """The API over its dependencies; it refuses to be made when routes and access table differ."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        try:
            async with mcp.run():
                yield
        finally:
            await noise.close()
            for close in deps.close:
                await close()

    noise = NoiseMeter(deps.db)
    mcp = AgentMcp(deps)
    app = describe(lifespan)
    app.state.deps = deps
    app.state.noise = noise
    app.state.mcp = mcp
    app.state.seen_principals = SeenPrincipals()
    app.add_middleware(BodyGuard, max_bytes=deps.settings.max_body_bytes)
    app.add_middleware(problems.LastResort)
    return app


def describe(lifespan: Any = None) -> FastAPI:
    """The application without anything behind it: enough for its OpenAPI description."""
    everything = routes()
    access.check(everything, _asking(everything, caller), _asking(everything, agent))
    app = FastAPI(
        title="AWGP",
        version=health.VERSION,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={
            "default": {
                "model": Problem,
                "description": "A problem document: what is wrong, and where.",
                "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }
        },
    )
    for router in ROUTERS:
        app.include_router(router)
    problems.install(app)
    return app


def _asking(routes: list[APIRoute], who: object) -> list[APIRoute]:
    return [route for route in routes if who in set(_calls(route.dependant))]


def _calls(dependant: Dependant) -> Iterator[object]:
    for inner in dependant.dependencies:
        yield inner.call
        yield from _calls(inner)
