"""Which headers cross the bridge. Pure.

Inbound, everything that could say who asks, or for whom, is dropped: that is said outside, by the run's warrant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from multidict import CIMultiDict

from sandbox.agent_problems import AgentRefusedError

_NAME = re.compile(r"[a-z0-9-]+")
"""No underscore: some servers read it as a dash, and a dropped header would be back."""
_VALUE = re.compile(r"[\t\x20-\x7e]*")

# RFC 9110, 7.6.1, and what belongs to one connection or one body's framing.
_HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "te", "trailer", "transfer-encoding",
        "upgrade", "http2-settings", "content-length", "expect", "host",
    }
)  # fmt: skip
_CREDENTIALS = frozenset(
    {
        "authorization", "cookie", "cookie2", "api-key", "x-api-key", "apikey", "openai-organization",
        "openai-project", "anthropic-api-key", "x-goog-api-key", "x-auth-token", "x-access-token", "x-csrf-token",
        "forwarded", "via", "from", "x-real-ip", "true-client-ip", "client-ip", "x-client-ip", "x-cluster-client-ip",
        "x-original-url", "x-rewrite-url", "x-original-host", "x-host", "x-http-method-override",
        "x-http-method", "x-method-override", "teleport-jwt-assertion",
    }
)  # fmt: skip
_PREFIXES = ("x-awgp-", "x-forwarded-", "proxy-", "cf-", "x-envoy-", "x-amz-", "sec-websocket-")
_ANSWER_DROPPED = frozenset({"set-cookie", "set-cookie2", "server", "www-authenticate", "alt-svc"})


def to_outside(headers: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
    """Returns what of an agent's headers goes out.

    Raises:
        AgentRefusedError: A value has bytes that not every server reads alike.
    """
    kept: CIMultiDict[str] = CIMultiDict()
    listed = list(headers)
    named = _named_by_connection(listed)
    for name, value in listed:
        lower = name.lower()
        if not _NAME.fullmatch(lower) or lower in _HOP_BY_HOP or lower in named:
            continue
        if lower in _CREDENTIALS or lower.startswith(_PREFIXES):
            continue
        if not _VALUE.fullmatch(value):
            detail = f"The header {lower} has bytes that are not plain text."
            raise AgentRefusedError(400, "bad-request", "Bad request", detail)
        kept.add(name, value)
    return kept


def to_inside(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Returns what of an answer's headers goes in."""
    kept: CIMultiDict[str] = CIMultiDict()
    named = _named_by_connection(headers.items())
    for name, value in headers.items():
        lower = name.lower()
        if lower not in _HOP_BY_HOP and lower not in named and lower not in _ANSWER_DROPPED:
            kept.add(name, value)
    return kept


def _named_by_connection(headers: Iterable[tuple[str, str]]) -> frozenset[str]:
    values = [value for name, value in headers if name.lower() == "connection"]
    return frozenset(word.strip().lower() for value in values for word in value.split(","))
