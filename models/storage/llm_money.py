"""The second tier of money: one reservation divided call by call in Redis, each step one script.

INVARIANT: charged + held <= the reservation's grant, at every instant. What Redis holds can be lost with it; so each
opening names the server's process and its memory (`Identity`), and after a restart, even from its append-only file,
nothing is held on it until the reservation has been reconciled.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast
from uuid import UUID

from models.storage import llm_scripts
from models.storage.redis_line import LineLostError, RedisLine, RedisRefusedError

LEDGER = "money:ledger"
REFUSED = "money:ledger:refused"
"""Entries that PostgreSQL does not take: kept for people, out of the others' way."""
BOOT = "money:boot"
TIMEOUT_SECONDS = 2.0
KEEP_CLOSED_SECONDS = 7 * 86400
MOST_NANO = 2**53 - 1
"""Lua counts exactly up to here (9 million USD); a larger grant is opened with this much."""

_SCRIPTS = {
    name: (text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
    for name, text in (
        ("open", llm_scripts.OPEN),
        ("hold", llm_scripts.HOLD),
        ("settle", llm_scripts.SETTLE),
        ("close", llm_scripts.CLOSE),
    )
}


class RedisAwayError(Exception):
    """Redis did not answer.

    Attributes:
        unsure: The step may have been done all the same.
    """

    def __init__(self, words: str, *, unsure: bool) -> None:
        super().__init__(words)
        self.unsure = unsure


class Money(StrEnum):
    """What a script answers."""

    OPEN = "open"
    HELD = "held"
    SETTLED = "settled"
    DONE = "done"
    """There is no such hold (any more): it has been settled before."""
    SHORT = "short"
    RPM = "rpm"
    TPM = "tpm"
    CLOSED = "closed"
    NEVER = "never"
    MISSING = "missing"
    """Redis knows nothing of the reservation."""
    LOST = "lost"
    """It was opened in another life of Redis, whose memory may be gone."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a script answered: the word, then numbers (and, for `close`, the calls still under way)."""

    state: Money
    numbers: tuple[int, ...] = ()
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hold:
    """What a call asks for. Amounts in nano-USD; `most` is taken where it is free, and nothing below `least`."""

    reservation: UUID
    call: UUID
    most: int
    least: int
    most_tokens: int
    least_tokens: int
    rpm: int
    tpm: int
    about: str


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a call came to; `amount` None: as much as was held."""

    reservation: UUID
    call: UUID
    amount: int | None
    tokens: int | None
    kind: str
    facts: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the ledger's stream."""

    id: str
    fields: dict[str, str]


class LlmMoney:
    """The scripts over one line, as the control plane's own user.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._line: RedisLine | None = None
        self._connecting = asyncio.Lock()

    async def identity(self) -> str:
        """Of the life of Redis that answers now.

        Raises:
            RedisAwayError: None does.
        """
        line = await self._reach()
        await self._wait(line, "PING")
        return line.leads_to

    async def open(self, reservation: UUID, identity: str, token: int, limit: int, charged: int) -> Answer:
        """Make what PostgreSQL has opened known here; repeatable.

        Args:
            reservation: Which.
            identity: As the opening's row says.
            token: Rises with each opening of the same reservation.
            limit: The grant.
            charged: What of it the ledger has already.
        """
        money, holds = _keys(reservation)
        limit = min(limit, MOST_NANO)
        return await self._run(
            "open", (money, holds, BOOT), (_boot(identity), identity, token, limit, min(charged, limit)), identity
        )

    async def hold(self, hold: Hold) -> Answer:
        """Take the worst case, a call and its tokens, or nothing; `held, amount, tokens` or what is short."""
        return await self._run(
            "hold",
            _keys(hold.reservation),
            (
                hold.call,
                min(hold.most, MOST_NANO),
                min(hold.least, MOST_NANO),
                min(hold.most_tokens, MOST_NANO),
                min(hold.least_tokens, MOST_NANO),
                hold.rpm,
                hold.tpm,
                hold.about,
            ),
        )

    async def settle(self, settlement: Settlement, identity: str | None = None) -> Answer:
        """Turn a hold into a charge and a ledger's entry, once; `settled, charged, held`."""
        return await self._run(
            "settle",
            (*_keys(settlement.reservation), LEDGER),
            (
                settlement.call,
                "" if settlement.amount is None else min(settlement.amount, MOST_NANO),
                "" if settlement.tokens is None else settlement.tokens,
                settlement.kind,
                settlement.facts,
            ),
            identity,
        )

    async def close(self, reservation: UUID, identity: str, token: int) -> Answer:
        """Let nothing more be held; `closed, charged, seconds since`, and the calls that still hold something."""
        money, holds = _keys(reservation)
        arguments = (_boot(identity), identity, token, KEEP_CLOSED_SECONDS)
        return await self._run("close", (money, holds, BOOT), arguments, identity)

    async def entries(self, after: str = "-", most: int = 500) -> list[Entry]:
        """A page of the ledger's stream, oldest first, after the entry with that id."""
        found = await self._ask("XRANGE", LEDGER, after if after == "-" else f"({after}", "+", "COUNT", most)
        return [Entry(_text(entry), _pairs(fields)) for entry, fields in cast("list[Any]", found)]

    async def taken(self, ids: Sequence[str]) -> None:
        """Forget entries that PostgreSQL has."""
        if ids:
            await self._ask("XDEL", LEDGER, *ids)

    async def refuse(self, entry: Entry, why: str) -> None:
        """Put an entry that PostgreSQL does not take aside, where people find it."""
        fields = [word for pair in entry.fields.items() for word in pair]
        await self._ask("XADD", REFUSED, "*", *fields, "why", why[:500])
        await self._ask("XDEL", LEDGER, entry.id)

    async def standing(self, reservation: UUID) -> dict[str, int]:
        """limit, charged, held, closed, for people; empty when it is not known here."""
        found = await self._ask("HMGET", _keys(reservation)[0], "limit", "charged", "held", "closed")
        names = ("limit", "charged", "held", "closed")
        return {name: int(value) for name, value in zip(names, found, strict=True)} if found[0] is not None else {}

    async def shut(self) -> None:
        """Close the connection."""
        if self._line is not None:
            self._line.close()

    async def _run(
        self, name: str, keys: Sequence[str], arguments: Sequence[Any], identity: str | None = None
    ) -> Answer:
        """Run a script; where it is for one life of Redis, only on a line that leads there."""
        text, digest = _SCRIPTS[name]
        line = await self._reach()
        # INVARIANT: a script is told the life of Redis that it runs in.
        if identity is not None and line.leads_to != identity:
            return Answer(Money.LOST)
        if name in ("hold", "settle"):
            arguments = (line.leads_to, *arguments)
        words = (len(keys), *keys, *(str(word) if isinstance(word, UUID) else word for word in arguments))
        try:
            found = await self._wait(line, "EVALSHA", digest, *words)
        except RedisRefusedError as error:
            if error.code != "NOSCRIPT":
                raise RedisAwayError(str(error)[:200], unsure=False) from error
            found = await self._wait(line, "EVAL", text, *words)
        return _answer(found)

    async def _ask(self, *words: Any) -> Any:
        line = await self._reach()
        try:
            return await self._wait(line, *words)
        except RedisRefusedError as error:
            raise RedisAwayError(str(error)[:200], unsure=False) from error

    async def _wait(self, line: RedisLine, *words: Any) -> Any:
        sent = not line.lost
        try:
            return await line.ask(*words)
        except LineLostError as error:
            raise RedisAwayError(str(error)[:200], unsure=sent) from error

    async def _reach(self) -> RedisLine:
        return self._line if self._line is not None and not self._line.lost else await self._connect()

    async def _connect(self) -> RedisLine:
        async with self._connecting:
            if self._line is not None and not self._line.lost:
                return self._line
            try:
                line = await RedisLine.connect(self._url, TIMEOUT_SECONDS)
                await _learn(line)
            except (OSError, TimeoutError, RedisRefusedError) as error:
                raise RedisAwayError(str(error)[:200] or type(error).__name__, unsure=False) from error
            self._line = line
            return line


async def _learn(line: RedisLine) -> None:
    """Note which life of Redis a new line leads to, and bring the scripts there; a line that cannot is closed."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            info = _text(await line.ask("INFO", "server"))
            await line.ask("SET", BOOT, secrets.token_hex(8), "NX")
            boot = _text(await line.ask("GET", BOOT))
            for text, _ in _SCRIPTS.values():
                await line.ask("SCRIPT", "LOAD", text)
    except BaseException:
        line.close()  # Redis that starts, or is a replica, answers no: each call would leave a connection behind
        raise
    run_id = next(row[7:].strip() for row in info.splitlines() if row.startswith("run_id:"))
    line.leads_to = f"{run_id}/{boot}"


def _keys(reservation: UUID) -> tuple[str, str]:
    return f"money:{{{reservation}}}", f"money:{{{reservation}}}:holds"


def _boot(identity: str) -> str:
    return identity.partition("/")[2]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _pairs(fields: Any) -> dict[str, str]:
    flat = [_text(word) for word in fields]
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _answer(found: Any) -> Answer:
    state, *rest = cast("list[Any]", found)
    return Answer(
        Money(_text(state)),
        tuple(word for word in rest if isinstance(word, int)),
        tuple(_text(word) for word in rest if not isinstance(word, int)),
    )
