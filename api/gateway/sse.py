"""Reading usage out of a stream of server-sent events while it passes (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import json
import re
from typing import Any, cast

from models.domain.llm import Usage
from models.rules import llm_cost

LARGEST_EVENT = 8 * 1024 * 1024
_DONE = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]")
"""At a line's beginning alone: a model may well say so in its words, and JSON writes no line's end within them."""
_NO_USAGE = (b'"usage":null', b'"usage": null')


class StreamMeter:
    """What of a stream has passed.

    An event is passed on as soon as it is whole, unparsed unless it may carry the usage. Comments pass as they are.

    Args:
        hide_usage: Take the event out that carries the usage alone: the gateway asked for it, not the caller.

    Attributes:
        usage: As the last event that told one says.
        upstream_id: The upstream's name for the call.
        model: Which model answered, as the upstream says.
        done: The upstream said that it has ended.
    """

    def __init__(self, *, hide_usage: bool) -> None:
        self._hide = hide_usage
        self._rest = b""
        self._events = 0
        self._bytes = 0
        self._smallest = LARGEST_EVENT
        self.usage: Usage | None = None
        self.upstream_id: str | None = None
        self.model: str | None = None
        self.done = False

    def feed(self, chunk: bytes) -> bytes:
        """Take what came; answers what to pass on now."""
        data = self._rest + chunk if self._rest else chunk
        end = _last_end(data)
        if end == 0 and len(data) < LARGEST_EVENT:
            self._rest = data
            return b""
        end = end or len(data)
        whole, self._rest = data[:end], data[end:]
        self._count(whole)
        if b"[DONE]" in whole and _DONE.search(whole):
            self.done = True
        if b'"usage"' in whole:
            return self._without_usage(whole)
        return whole

    def rest(self) -> bytes:
        """What never became a whole event."""
        rest, self._rest = self._rest, b""
        return rest

    @property
    def produced(self) -> int:
        """The most completion tokens that have come: no token is shorter than a byte of what the events say.

        All events of a stream have about the same envelope; what is beyond the smallest one's size is content.
        """
        return max(0, self._bytes - self._events * self._smallest) + 8 * self._events

    def _count(self, whole: bytes) -> None:
        for event in whole.split(b"\n\n"):
            size = len(event)
            if size > 2 and not event.startswith(b":"):
                self._events += 1
                self._bytes += size
                if size < self._smallest and b"[DONE]" not in event:
                    self._smallest = size

    def _without_usage(self, whole: bytes) -> bytes:
        kept: list[bytes] = []
        separator = b"\r\n\r\n" if b"\r\n\r\n" in whole else b"\n\n"
        for event in whole.split(separator):
            if b'"usage"' in event and not any(none in event for none in _NO_USAGE) and self._read(event):
                continue
            kept.append(event)
        return separator.join(kept)

    def _read(self, event: bytes) -> bool:
        """Take an event's usage; whether the event is to be hidden."""
        data = b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
        try:
            parsed: Any = json.loads(data)
        except ValueError:
            return False
        if not isinstance(parsed, dict):
            return False
        told = cast("dict[str, Any]", parsed)
        usage = llm_cost.read_usage(told.get("usage"))
        if usage is None:
            return False
        self.usage = usage
        self.upstream_id, self.model = text_of(told.get("id")), text_of(told.get("model"))
        return self._hide and told.get("choices") == []


def text_of(value: Any) -> str | None:
    """A name that the upstream gave, if it is one."""
    return value[:256] if isinstance(value, str) else None


def _last_end(data: bytes) -> int:
    """Where the last whole event ends."""
    end = data.rfind(b"\n\n")
    crlf = data.rfind(b"\r\n\r\n")
    return max(end + 2 if end >= 0 else 0, crlf + 4 if crlf >= 0 else 0)
