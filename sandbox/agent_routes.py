"""What an agent may ask through the bridge: an explicit list, and a reading of paths that allows one spelling each.

Pure. INVARIANT: what goes out is put together from a listed prefix and a path that matched its pattern whole; nothing
that the agent wrote is interpreted a second time outside.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from sandbox.agent_problems import AgentRefusedError

KIB, MIB = 1024, 1024 * 1024

_SEGMENT = r"[A-Za-z0-9_~@:+-][A-Za-z0-9._~@:+-]*"
"""One path segment: nothing that is escaped, empty, or begins with a dot."""
_QUERY = re.compile(r"[A-Za-z0-9._~=&%+:,-]{0,1024}")
_SAVED = re.compile(r"(?:[A-Za-z0-9._~@:+!$'()*,=&/-]|%(?!2[fF]|5[cC]|00)[0-9A-Fa-f]{2})+")
"""A saved file's name may be escaped, since it is decoded here and never sent on; not so its slashes."""


class Side(StrEnum):
    """Who answers."""

    GATEWAY = "model gateway"
    API = "control plane"
    HERE = "host runtime"


@dataclass(frozen=True)
class Route:
    """One thing that may be asked.

    Attributes:
        path: Must match whole.
        shown: The path as people write it.
        prefix: Put before the path outside.
        most_bytes: Of the body; 0: it must have none. None: the limit is held elsewhere.
    """

    method: str
    path: re.Pattern[str]
    shown: str
    side: Side
    prefix: str
    most_bytes: int | None


@dataclass(frozen=True)
class Matched:
    """A request that is on the list; ``path`` and ``query`` are safe to send as they are."""

    route: Route
    path: str
    query: str

    @property
    def outside(self) -> str:
        """Path and query for the other side."""
        return self.route.prefix + self.path + ("?" + self.query if self.query else "")


def _route(method: str, shown: str, side: Side, prefix: str, most_bytes: int | None) -> Route:
    one, many, saved = shown.replace("{id}", _SEGMENT), rf"{_SEGMENT}(?:/{_SEGMENT})*", _SAVED.pattern
    pattern = one.replace("{model}", many).replace("{path}", saved)
    return Route(method, re.compile(pattern), shown, side, prefix, most_bytes)


def _api(method: str, shown: str, most_bytes: int = 0) -> Route:
    return _route(method, shown, Side.API, "/v1/agent", most_bytes)


LLM_ROUTES = (
    _route("POST", "/llm/v1/chat/completions", Side.GATEWAY, "", 8 * MIB),
    _route("GET", "/llm/v1/models", Side.GATEWAY, "", 0),
    _route("GET", "/llm/v1/models/{model}", Side.GATEWAY, "", 0),
)
AWGP_ROUTES = (
    _api("POST", "/actions", 256 * KIB),
    _api("GET", "/actions"),
    _api("GET", "/actions/{id}"),
    _api("POST", "/progress", 16 * KIB),
    _api("POST", "/questions", 16 * KIB),
    _api("GET", "/questions/{id}"),
    _api("PUT", "/state", MIB),
    _api("GET", "/state"),
    _api("GET", "/context"),
    _api("POST", "/mcp", MIB),
    _api("GET", "/mcp"),
    _api("DELETE", "/mcp", MIB),
    _route("PUT", "/artifacts/{path}", Side.HERE, "", None),
)


def match(routes: tuple[Route, ...], method: str, target: str) -> Matched:
    """Finds what a request line asks for.

    Args:
        routes: Those of the socket that it came to.
        method: As sent.
        target: As sent, not decoded.

    Raises:
        AgentRefusedError: It is not on the list, or not written in the one way that is understood.
    """
    path, _, query = target.partition("?")
    for route in routes:
        if route.method == method and route.path.fullmatch(path):
            if not _QUERY.fullmatch(query):
                detail = "The query has characters that are not understood here, or more than 1024 of them."
                raise AgentRefusedError(400, "bad-request", "Bad request", detail)
            return Matched(route, path, query)
    there = ", ".join(f"{route.method} {route.shown}" for route in routes)
    detail = f"From inside the sandbox this address has: {there}. A path is written plainly, without escapes."
    raise AgentRefusedError(404, "not-found", "Not reachable from inside the sandbox", detail)
