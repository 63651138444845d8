"""Closing an item's model calls before its money is settled: nothing more is held, what is under way ends or is paid.

Outside any transaction, for it asks Redis. It is repeated by whoever settles until it has come to an end, so that it
waits without holding anything up.
"""

from __future__ import annotations

from uuid import UUID

import structlog

from models.domain.llm import ChargeKind
from models.domain.principal import service_principal
from models.repositories import llm_ledger as rows
from models.repositories.llm_ledger import OpenOne
from models.services.llm_ledger import Flusher, facts_of_call
from models.services.llm_openings import ModelCallsOpen, close_reservation, token_of
from models.storage.db import Database
from models.storage.llm_money import LlmMoney, Money, RedisAwayError, Settlement

UNDER_WAY_SECONDS = 30
"""How long calls that are under way may take once their run is over; then each is charged as much as it holds."""
REDIS_AWAY_SECONDS = 600
"""How long Redis is waited for after the run was last heard of; then it counts as lost."""

log = structlog.get_logger("llm_closing")


class ModelCloser:
    """Closes what an item has open.

    Args:
        db: The application's role.
        money: None: there is no Redis, so whatever is open counts as spent.
    """

    def __init__(self, db: Database, money: LlmMoney | None) -> None:
        self._db = db
        self._money = money
        self._flusher = Flusher(db, money) if money is not None else None

    async def close(self, tenant_id: UUID, work_item_id: UUID) -> None:
        """Close all of the item's openings; repeatable.

        Raises:
            ModelCallsOpen: Not yet: calls are under way, or Redis is away. Asking again helps.
        """
        async with self._db.tenant_session(tenant_id) as session:
            found = await rows.open_of_item(session, tenant_id, work_item_id)
        for one in found:
            charged, why = await self._in_redis(one)
            principal = service_principal("control", tenant_id)
            async with self._db.session_for(principal) as session:
                await close_reservation(
                    session, principal, work_item_id, one.reservation_id, token_of(one.opened_at), charged, why
                )

    async def _in_redis(self, one: OpenOne) -> tuple[int | None, str]:
        """What was charged there once nothing is held any more; None and why, when nobody can say."""
        if self._money is None or self._flusher is None:
            return None, "there is no Redis to ask"
        token = token_of(one.opened_at)
        try:
            answer = await self._money.close(one.reservation_id, one.identity, token)
            if answer.calls and answer.numbers[1] < UNDER_WAY_SECONDS:
                left = UNDER_WAY_SECONDS - answer.numbers[1]
                raise ModelCallsOpen(f"{len(answer.calls)} model calls are under way; they have {left} s more")
            for call in answer.calls:
                await self._charge_as_held(one, call)
            if answer.calls:
                answer = await self._money.close(one.reservation_id, one.identity, token)
            await self._flusher.flush()
        except RedisAwayError as error:
            if one.silent_seconds < REDIS_AWAY_SECONDS:
                raise ModelCallsOpen(f"Redis cannot say what was spent on models: {error}") from error
            log.error("redis_given_up", reservation=str(one.reservation_id), why=str(error))
            return None, "Redis was away for too long"
        if answer.state is Money.CLOSED:
            return answer.numbers[0], "entries of the ledger are missing"
        if answer.state is Money.NEVER:
            return 0, ""
        log.error("redis_lost", reservation=str(one.reservation_id))
        return None, "Redis has lost its memory since they began"

    async def _charge_as_held(self, one: OpenOne, call: str) -> None:
        assert self._money is not None, "checked by the caller"
        detail = "its end was never told: charged as much as it held"
        settlement = Settlement(
            one.reservation_id, UUID(call), None, None, ChargeKind.ESTIMATED.value, facts_of_call(detail=detail)
        )
        await self._money.settle(settlement, one.identity)
