"""Is the process alive, and is everything there that it stands on?"""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from fastapi import APIRouter, Response

from api.deps import Given, Probe
from api.schemas.health import Alive, Dependency, Readiness

router = APIRouter(tags=["health"])

PROBE_SECONDS = 2.0
"""So that an operator's question is answered also when everything hangs."""


def _version() -> str:
    try:
        return version("awgp")
    except PackageNotFoundError:
        return "unknown"


VERSION = _version()


@router.get("/healthz")
async def healthz() -> Alive:
    """The process answers; it asks nobody else."""
    return Alive(version=VERSION)


@router.get(
    "/readyz", responses={503: {"model": Readiness, "description": "A dependency is away without which nothing works."}}
)
async def readyz(given: Given, response: Response) -> Readiness:
    """Each dependency with its state and latency; 503 when one is away that no request can do without."""
    found = await asyncio.gather(*(_ask(probe) for probe in given.probes))
    away = [dependency for dependency in found if dependency.state != "ok"]
    status: Literal["ready", "degraded", "away"] = "ready"
    if away:
        status = "away" if any(dependency.hard for dependency in away) else "degraded"
    if status == "away":
        response.status_code = 503
        response.headers["Retry-After"] = "5"
    return Readiness(status=status, version=VERSION, dependencies=list(found))


async def _ask(probe: Probe) -> Dependency:
    begun = time.perf_counter()
    state: Literal["ok", "away", "unknown"] = "ok"
    try:
        words = await asyncio.wait_for(probe.check(), PROBE_SECONDS)
    except TimeoutError:
        state, words = "away", f"no answer within {PROBE_SECONDS:g} s"
    except Exception as error:  # whatever a client raises, the thing is not there
        # The class alone: a message may carry an address with a password in it.
        state, words = "away", type(error).__name__
    latency = round((time.perf_counter() - begun) * 1000, 1)
    return Dependency(name=probe.name, state=state, hard=probe.hard, latency_ms=latency, words=words)
