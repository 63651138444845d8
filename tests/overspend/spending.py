"""Many callers on one reservation that suffices for exactly N calls, counted again from both sides' own records.

Each call is made to cost exactly what it holds (its script says a `usage.cost`), so that N of them fit, whatever their
order, and not one more. What a killed gateway leaves held is charged as held, so N stands all the same.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import aiohttp

from models.domain.money import NANO_PER_USD
from models.domain.scripted import SCRIPTED_MODEL
from models.services import llm_closing
from models.services.llm_closing import ModelCloser
from models.services.llm_openings import ModelCallsOpen
from models.storage.llm_money import LlmMoney
from tests.overspend.world import Grant, Process, World

ANSWER_TOKENS = 64
LONGEST_SECONDS = 120.0
LOOK_SECONDS = 0.01
READY_SECONDS = 60.0
"""For a gateway that has just started."""
_GONE = (aiohttp.ClientError, OSError, TimeoutError)
_REFUSED_FOR_MONEY = 402


@dataclass(frozen=True)
class Tally:
    """What came of one round.

    Attributes:
        calls: Requests that callers made.
        admitted: Holds that were granted: rows of the ledger, once it is whole.
        expected: How many the reservation suffices for.
        refused: Answers 402.
        over: Calls that upstream answered beyond that, nano-dollars charged beyond the grant, and moments at which
            charged + held was more than the grant.
        faults: What else is not as it must be.
    """

    calls: int
    admitted: int
    expected: int
    refused: int
    over: int
    faults: tuple[str, ...]

    @property
    def line(self) -> str:
        return (
            f"calls={self.calls} admitted={self.admitted} expected={self.expected} refused={self.refused}"
            f" over={self.over}"
        )

    @property
    def well(self) -> bool:
        return self.admitted == self.expected and self.over == 0 and not self.faults and self.refused > 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.calls + other.calls,
            self.admitted + other.admitted,
            self.expected + other.expected,
            self.refused + other.refused,
            self.over + other.over,
            self.faults + other.faults,
        )


class Spender:
    """Callers in front of gateways.

    Args:
        gateways: A call goes to any of them.
        seed: Of everything that is drawn.
    """

    def __init__(self, world: World, gateways: Sequence[Process], seed: int = 1) -> None:
        self._world = world
        self._gateways = gateways
        self._random = random.Random(seed)
        self._calls: Counter[str] = Counter()
        self._beyond = 0
        self._number = 0

    async def round(self, calls: int, *, kills: int = 0) -> Tally:
        """`calls` callers at once on a reservation for half as many; with kills each goes on until it is refused."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as client, _line(self._world) as money:
            cost = await self._cost_of_a_call(client)
            expected = max(1, calls // 2)
            grant = await self._world.grant(expected * cost)
            self._calls.clear()
            self._beyond = 0
            async with self._watched(money, grant), asyncio.timeout(LONGEST_SECONDS), asyncio.TaskGroup() as group:
                for number in range(calls):
                    group.create_task(self._caller(client, grant, number, cost, again=kills > 0))
                if kills:
                    group.create_task(self._strike(kills))
            return await self._recount(grant, money, expected, cost)

    async def _cost_of_a_call(self, client: aiohttp.ClientSession) -> int:
        """What a call holds: the same for every caller, since all bodies are equally long."""
        grant = await self._world.grant(10**12)
        await self._first(client, self._gateways[0], grant, stream=True)
        for gateway in self._gateways:
            await self._first(client, gateway, grant, stream=False)
        async with _line(self._world) as money:
            await self._close(grant, money)
        held = {row["held_nano"] for row in self._ledger(grant)}
        assert len(held) == 1, f"calls of one length hold differently: {held}"
        return held.pop()

    async def _first(self, client: aiohttp.ClientSession, gateway: Process, grant: Grant, *, stream: bool) -> None:
        """A call that goes through; one that has just started may be reading prices yet."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            status = await self._ask(client, gateway, grant, self._body(grant, 0, 0, stream=stream))
            if status == 200:
                return
            assert status in (0, 503), f"a first call was answered {status}"
            assert time.monotonic() < deadline, "a gateway was not ready in time"
            await asyncio.sleep(0.1)

    def _body(self, grant: Grant, number: int, cost: int, *, stream: bool) -> dict[str, Any]:
        """A request; its length does not depend on who asks, nor on whether it is to stream."""
        dollars = f"{cost // NANO_PER_USD}.{cost % NANO_PER_USD:09d}"
        pieces = number % 9 + 1
        script = f'[{{"text":"Spent, as I was told to.","chunks":{pieces},"usage":{{"cost":{dollars}}}}}]'
        self._number += 1
        return {
            "model": SCRIPTED_MODEL,
            "max_tokens": ANSWER_TOKENS,
            "messages": [{"role": "user", "content": f"```awgp-script\n{script}\n```"}],
            "stream": stream,
            "stream_options": {"include_usage": True},
            # `true` is a letter shorter than `false`.
            "user": f"{str(grant.run_id)[-12:]}/{self._number:06d}" + ("." if stream else ""),
        }

    async def _ask(
        self, client: aiohttp.ClientSession, gateway: Process, grant: Grant, body: dict[str, Any]
    ) -> int:
        """The status; 0 when the answer did not come to its end."""
        url = f"{gateway.url}/llm/v1/chat/completions"
        try:
            async with client.post(url, json=body, headers=grant.headers) as answer:
                whole = await answer.read()
        except _GONE:
            return 0
        if answer.status == 200 and body["stream"] and not whole.endswith(b"data: [DONE]\n\n"):
            return 0
        return answer.status

    async def _caller(
        self, client: aiohttp.ClientSession, grant: Grant, number: int, cost: int, *, again: bool
    ) -> None:
        """One call; with `again` as many as it takes until the money is gone."""
        while True:
            stream = number % 2 == 1
            gateway = self._random.choice(self._gateways)
            status = await self._ask(client, gateway, grant, self._body(grant, number, cost, stream=stream))
            self._calls[str(status)] += 1
            if not again or status == _REFUSED_FOR_MONEY:
                return
            await asyncio.sleep(0.02)

    async def _strike(self, kills: int) -> None:
        """Kill -9 a gateway, start it again, and so on; each at a moment of its own."""
        for _ in range(kills):
            await asyncio.sleep(self._random.uniform(0.02, 0.3))
            victim = self._random.choice(self._gateways)
            victim.kill()
            victim.start()
            await victim.listening()

    @asynccontextmanager
    async def _watched(self, money: LlmMoney, grant: Grant) -> AsyncGenerator[None]:
        """Look all the while whether more is charged and held than was granted."""

        async def look() -> None:
            while True:
                standing = await money.standing(grant.reservation_id)
                if standing and standing["charged"] + standing["held"] > grant.nano:
                    self._beyond += 1
                await asyncio.sleep(LOOK_SECONDS)

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking

    async def _close(self, grant: Grant, money: LlmMoney) -> None:
        """As an item's end does it. Who called has gone, so nothing is under way any more."""
        closer = ModelCloser(self._world.db, money)
        async with asyncio.timeout(LONGEST_SECONDS):
            while True:
                try:
                    await closer.close(grant.tenant_id, grant.work_item_id)
                except ModelCallsOpen:
                    await asyncio.sleep(0.05)
                else:
                    return

    async def _recount(self, grant: Grant, money: LlmMoney, expected: int, cost: int) -> Tally:
        upstream = await self._upstream_ended(grant)
        # A stream's last calls settle a moment after their callers have read them.
        for gateway in self._gateways:
            await asyncio.to_thread(gateway.end)
        with patch.object(llm_closing, "UNDER_WAY_SECONDS", 0):
            await self._close(grant, money)
        ledger = self._ledger(grant)
        charged = sum(row["amount_nano"] for row in ledger)
        answered = sum(line["status"] == 200 for line in upstream)
        faults: list[str] = []
        known = Counter(row["upstream_id"] for row in ledger if row["upstream_id"])
        if unknown := known.keys() - {line["id"] for line in upstream}:
            faults.append(f"the ledger names calls that upstream never had: {sorted(unknown)[:3]}")
        if doubled := [name for name, times in known.items() if times > 1]:
            faults.append(f"charged twice: {doubled[:3]}")
        if answered > len(ledger):
            faults.append(f"upstream answered {answered} calls, the ledger has {len(ledger)}")
        if odd := [row for row in ledger if row["amount_nano"] != cost]:
            faults.append(f"{len(odd)} charges are not what was held, such as {odd[0]}")
        if other := self._calls.keys() - {"200", "402", "0", "503"}:
            faults.append(f"answers with {sorted(other)}")
        over = max(0, answered - expected) + max(0, charged - grant.nano) + self._beyond
        refused = self._calls[str(_REFUSED_FOR_MONEY)]
        return Tally(self._calls.total(), len(ledger), expected, refused, over, tuple(faults))

    async def _upstream_ended(self, grant: Grant) -> list[dict[str, Any]]:
        """Upstream's own record of the calls of this grant, once it has not grown for a while."""
        mark = str(grant.run_id)[-12:]
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(LONGEST_SECONDS):
            while True:
                text = await asyncio.to_thread(self._world.upstream_log.read_text)
                lines = [line for line in map(json.loads, text.splitlines()) if str(line["user"]).startswith(mark)]
                if found and len(lines) == len(found):
                    return lines
                found = lines
                await asyncio.sleep(0.3)

    def _ledger(self, grant: Grant) -> list[dict[str, Any]]:
        with self._world.database.admin() as admin:
            found = admin.execute(
                "select call_id, held_nano, amount_nano, kind, upstream_id from llm_charges where reservation_id = %s",
                (grant.reservation_id,),
            ).fetchall()
        names = ("call_id", "held_nano", "amount_nano", "kind", "upstream_id")
        return [dict(zip(names, row, strict=True)) for row in found]


@asynccontextmanager
async def _line(world: World) -> AsyncGenerator[LlmMoney]:
    money = LlmMoney(world.valkey.url)
    try:
        yield money
    finally:
        await money.shut()
