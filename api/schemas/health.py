"""Health, as the API speaks of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.fields import Answer


class Alive(Answer):
    """The process answers."""

    status: Literal["ok"] = "ok"
    version: str


class Dependency(Answer):
    """One thing that the API stands on."""

    name: str = Field(examples=["postgres"])
    state: Literal["ok", "away", "unknown"]
    hard: bool = Field(description="Without it no request can be served.")
    latency_ms: float
    words: str = ""


class Readiness(Answer):
    """Whether requests can be served, and what is how."""

    status: Literal["ready", "degraded", "away"]
    version: str
    dependencies: list[Dependency]
