"""Turning a hold into a charge, whatever became of the call; what Redis does not take waits on this machine's disk."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from api.gateway.admission import Admitted
from models.domain.llm import ChargeKind, Usage
from models.domain.rate_card import MILLION, RateCard
from models.rules import llm_cost
from models.services.llm_ledger import facts_of_call
from models.services.llm_spool import LlmSpool
from models.storage.llm_money import LlmMoney, Money, RedisAwayError, Settlement

log = structlog.get_logger("settling")


class Settling:
    """Settles calls.

    Args:
        money: Redis.
        spool: Where a charge waits that Redis does not take.
    """

    def __init__(self, money: LlmMoney, spool: LlmSpool) -> None:
        self._money = money
        self._spool = spool
        self._tasks: set[asyncio.Task[None]] = set()

    async def used(
        self, call: Admitted, usage: Usage, *, model: str | None, upstream_id: str | None, status: int
    ) -> int:
        """Charge what the upstream told; answers nano-USD."""
        cost = max(llm_cost.actual(card, usage, call.asked.images) for card in _answered(call, model))
        facts = facts_of_call(tokens=usage.by_class(), upstream_id=upstream_id, status=status)
        await self._settle(call, cost, usage.total, ChargeKind.FINAL, facts)
        return cost

    async def nothing(self, call: Admitted, status: int | None, detail: str = "") -> None:
        """Give the hold back: nothing was executed, or the upstream answered an error, which it does not bill."""
        await self._settle(call, 0, 0, ChargeKind.FINAL, facts_of_call(status=status, detail=detail))

    async def as_held(self, call: Admitted, status: int | None, detail: str) -> None:
        """Charge the worst case: it was executed, or may have been, and nobody tells what it used."""
        await self._settle(call, None, None, ChargeKind.ESTIMATED, facts_of_call(status=status, detail=detail))

    async def produced(self, call: Admitted, tokens: int, status: int, detail: str) -> None:
        """Charge a stream that was cut for what had come of it; a model that may think unseen, as it was held."""
        if any(card.reasoning for card in call.cards):
            await self.as_held(call, status, f"{detail}; what it thought unseen is billed too")
            return
        dearest = max(card.dearest_output for card in call.cards)
        cost = min(call.held, -(-(call.bound.fixed + tokens * dearest) // MILLION))
        facts = facts_of_call(tokens={"produced_at_most": tokens}, status=status, detail=detail)
        await self._settle(call, cost, None, ChargeKind.ESTIMATED, facts)

    async def give_back_unsure(self, call: Admitted) -> None:
        """Free what Redis may hold without having said so."""
        facts = facts_of_call(detail="refused: Redis did not say whether it held; nothing was sent")
        await self._later(call, 0, 0, ChargeKind.FINAL, facts)

    def aside(self, work: Coroutine[Any, Any, Any]) -> None:
        """Let it end whatever becomes of the request that it belongs to."""
        task = asyncio.ensure_future(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, seconds: float) -> None:
        """Wait for what was put aside; what does not end in time is found by its hold."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)

    async def _settle(
        self, call: Admitted, amount: int | None, tokens: int | None, kind: ChargeKind, facts: str
    ) -> None:
        settlement = Settlement(call.reservation, call.call, amount, tokens, kind.value, facts)
        try:
            answer = await self._money.settle(settlement)
        except RedisAwayError as error:
            log.warning("settled_later", call=str(call.call), why=str(error))
        else:
            if answer.state in (Money.SETTLED, Money.DONE):
                return
            log.error("redis_lost", call=str(call.call), state=answer.state.value)
        await self._later(call, amount, tokens, kind, facts)

    async def _later(
        self, call: Admitted, amount: int | None, tokens: int | None, kind: ChargeKind, facts: str
    ) -> None:
        line = {
            "call": str(call.call), "amount": amount, "held": call.held, "tokens": tokens, "kind": kind.value,
            "about": call.about, "facts": facts, "identity": call.identity,
        }  # fmt: skip
        try:
            await self._spool.add(line)
        except OSError as error:
            # Its hold stays, and is charged in full when the work item ends.
            log.error("not_spooled", line=line, why=str(error))


def _answered(call: Admitted, model: str | None) -> tuple[RateCard, ...]:
    """The card of the model that answered, where the upstream names one of those asked for; else all of them."""
    return tuple(card for card in call.cards if card.model == model) or call.cards


async def _quietly(work: Coroutine[Any, Any, Any]) -> None:
    try:
        await work
    except Exception as error:
        log.error("not_settled", why=repr(error)[:300])
