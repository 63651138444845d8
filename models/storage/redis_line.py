"""One connection to Redis that many calls share: commands go out as they come, answers come back in that order.

For the scripts of money, for which every model call waits twice. A general client reconnects by itself; a line
never does, so that it leads to one life of the server. And all it costs is a write and a read of the event loop.
RESP2, as the Redis documentation specifies it (redis.io/docs/latest/develop/reference/protocol-spec).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from redis.asyncio.connection import SSLConnection, parse_url

Answer = Any
"""int, bytes, None, a list of answers, or a `RedisRefusedError`."""


class RedisRefusedError(Exception):
    """Redis answered with an error; `code` is its first word."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.code = words.split(" ", 1)[0]


class LineLostError(ConnectionError):
    """The connection ended, or an answer did not come: what was asked may have been done."""


class RedisLine(asyncio.Protocol):
    """The connection; made by `connect`.

    Attributes:
        lost: It has ended; whatever is asked fails.
        leads_to: Whoever connected notes here which life of the server answers.
    """

    def __init__(self) -> None:
        self.leads_to = ""
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[Answer]] = deque()
        self._buffer = bytearray()
        self._answered = 0
        self._watch: asyncio.TimerHandle | None = None
        self._patience = 0.0
        self._why = "Redis ended the connection"
        self.lost = False

    @classmethod
    async def connect(cls, url: str, seconds: float) -> RedisLine:
        """Open a connection and authenticate.

        Args:
            url: Of the server, with the user and the password.
            seconds: In which it must be open; a line that owes answers and gives none for so long is lost later, too.

        Raises:
            OSError: It cannot be had.
            RedisRefusedError: Redis does not let this user in.
        """
        options = cast("dict[str, Any]", parse_url(url))
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(seconds):
            if "path" in options:
                _, line = await loop.create_unix_connection(cls, options["path"])
            else:
                tls = options.get("connection_class") is SSLConnection
                context = ssl.create_default_context(cafile=options.get("ssl_ca_certs")) if tls else None
                host, port = options.get("host", "127.0.0.1"), options.get("port", 6379)
                _, line = await loop.create_connection(cls, host, port, ssl=context)
            try:
                if options.get("password"):
                    await line.ask("AUTH", options.get("username") or "default", options["password"])
                if options.get("db"):
                    await line.ask("SELECT", options["db"])
            except BaseException:
                line.close()  # the event loop would keep it for ever
                raise
        line._patience = seconds
        return line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop: nobody who waits gets an answer any more."""
        self.lost = True
        if self._watch is not None:
            self._watch.cancel()
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(LineLostError(str(exc) if exc else self._why))

    def data_received(self, data: bytes) -> None:
        """Called by the event loop: give each whole answer to who has waited longest."""
        self._buffer += data
        start = 0
        try:
            while start < len(self._buffer):
                answer, start = _parse(self._buffer, start)
                future = self._waiting.popleft()
                self._answered += 1
                if future.done():
                    continue  # who asked has gone
                if isinstance(answer, RedisRefusedError):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        except _MoreError:
            pass
        except (ValueError, IndexError):
            self.close()  # this is not Redis
        del self._buffer[:start]

    def ask(self, *words: str | bytes | int) -> asyncio.Future[Answer]:
        """Send a command; await the answer.

        Raises:
            LineLostError: In the future, or at once where nothing was sent (`lost` was true before).
            RedisRefusedError: In the future.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        if self.lost or self._transport is None or self._transport.is_closing():
            self.lost = True
            future.set_exception(LineLostError("the connection had ended"))
            return future
        self._waiting.append(future)
        self._transport.write(_packed(words))
        if self._watch is None and self._patience:
            self._watch = self._loop.call_later(self._patience, self._look, self._answered)
        return future

    def _look(self, answered: int) -> None:
        """One timer for all who wait, where a timeout of each one's own would cost more than the command."""
        self._watch = None
        if not self._waiting or self.lost:
            return
        if self._answered == answered:
            self._why = "Redis did not answer in time"
            self.close()
        else:
            self._watch = self._loop.call_later(self._patience, self._look, self._answered)

    def close(self) -> None:
        """End the connection: its answers would come to the wrong asker."""
        self.lost = True
        if self._transport is not None:
            self._transport.abort()


class _MoreError(Exception):
    """The answer is not whole yet."""


def _packed(words: tuple[str | bytes | int, ...]) -> bytes:
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


def _parse(buffer: bytearray, start: int) -> tuple[Answer, int]:
    """The answer that begins at `start`, and where the next one does."""
    end = buffer.find(b"\r\n", start)
    if end < 0:
        raise _MoreError
    kind, line, after = buffer[start], bytes(buffer[start + 1 : end]), end + 2
    return _KINDS[chr(kind)](buffer, line, after)


def _bulk(buffer: bytearray, line: bytes, after: int) -> tuple[Answer, int]:
    size = int(line)
    if size < 0:
        return None, after
    if len(buffer) < after + size + 2:
        raise _MoreError
    return bytes(buffer[after : after + size]), after + size + 2


def _array(buffer: bytearray, line: bytes, after: int) -> tuple[Answer, int]:
    size = int(line)
    if size < 0:
        return None, after
    found: list[Answer] = []
    for _ in range(size):
        answer, after = _parse(buffer, after)
        found.append(answer)
    return found, after


def _error(_buffer: bytearray, line: bytes, after: int) -> tuple[Answer, int]:
    return RedisRefusedError(line.decode(errors="replace")), after


class _Kinds(dict[str, Callable[[bytearray, bytes, int], tuple[Answer, int]]]):
    def __missing__(self, kind: str) -> Callable[[bytearray, bytes, int], tuple[Answer, int]]:
        raise ValueError(f"{kind!r} begins no answer of Redis")


_KINDS = _Kinds(
    {
        "$": _bulk,
        "*": _array,
        "-": _error,
        ":": lambda _, line, after: (int(line), after),
        "+": lambda _, line, after: (line, after),
    }
)
