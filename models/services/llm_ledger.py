"""The ledger of model calls: from Redis's stream (and from what could not get there) into PostgreSQL.

INVARIANT: an entry leaves the stream after it stands in PostgreSQL, and a (call, attempt) stands there once; so it does
not matter who moves it, how often, or where a process dies meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from models.domain.events import EventKind, ItemEvent
from models.domain.money import format_usd
from models.domain.principal import service_principal
from models.domain.rate_card import RateCard
from models.repositories import llm_ledger as rows
from models.services import audit, events
from models.services.llm_spool import Line, LlmSpool
from models.services.run_credentials import RunClaims
from models.storage.cache import Cache
from models.storage.db import Database
from models.storage.llm_money import Entry, LlmMoney, Money, RedisAwayError, Settlement

FLUSH_SECONDS = 0.25
"""How long a charge may be in Redis alone. The durable hold is in PostgreSQL all the while."""
AWAY_SECONDS = 1.0
A_PAGE = 40
"""Some 3 ms of computing, for which every call of the gateway waits: large pages are its p99, small ones cost rate."""

log = structlog.get_logger("llm_ledger")

Charge = dict[str, Any]


class Flusher:
    """Moves entries. Any number may at once, in gateways and in the control worker.

    Args:
        db: The application's role.
        money: A line of its own, so that pages of the stream are in no call's way.
        spool: What this machine's gateways could not bring to Redis; None: not ours to bring in.
        cache: Rings who watches an item.
    """

    def __init__(
        self, db: Database, money: LlmMoney, spool: LlmSpool | None = None, cache: Cache | None = None
    ) -> None:
        self._db = db
        self._money = money
        self._spool = spool
        self._cache = cache

    async def run(self, stop: asyncio.Event) -> None:
        """Flush until told to stop, and once more then."""
        while True:
            stopping = stop.is_set()
            pause = FLUSH_SECONDS
            try:
                await self.flush()
            except (RedisAwayError, SQLAlchemyError, OSError, TimeoutError) as error:
                log.warning("not_flushed", why=str(error)[:200] or type(error).__name__)
                pause = AWAY_SECONDS
            except Exception:  # a bug: whoever ends here leaves every later charge in Redis alone
                log.exception("not_flushed")
                pause = AWAY_SECONDS
            if stopping:
                return
            try:
                async with asyncio.timeout(pause):
                    await stop.wait()
            except TimeoutError:
                continue

    async def flush(self) -> int:
        """Move all that is there now; answers how many entries.

        Raises:
            RedisAwayError: Redis does not answer.
            SQLAlchemyError: PostgreSQL does not; what has not been moved stays.
        """
        if self._spool is not None:
            await self._spool.bring_in(self._bring_in)
        moved, after = 0, "-"
        while page := await self._money.entries(after, A_PAGE):
            after = page[-1].id
            for charges in (await self._by_item(page)).values():
                await self._move(charges)
            moved += len(page)
            if len(page) < A_PAGE:
                break
        return moved

    async def _by_item(self, page: Iterable[Entry]) -> dict[tuple[str, str], list[tuple[Entry, Charge]]]:
        """The entries as charges; what is none is put aside, so that it is in nobody's way."""
        found: dict[tuple[str, str], list[tuple[Entry, Charge]]] = {}
        for entry in page:
            fields = entry.fields
            try:
                charge = _charge(fields, json.loads(fields["about"]), json.loads(fields["facts"]))
                item = (str(UUID(charge["tenant_id"])), str(UUID(charge["work_item_id"])))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                log.error("ledger_unread", entry=entry.id, why=repr(error)[:300])
                await self._money.refuse(entry, f"it cannot be read: {error!r}")
                continue
            found.setdefault(item, []).append((entry, charge))
        return found

    async def _move(self, found: list[tuple[Entry, Charge]]) -> None:
        """The charges of one item, in one transaction."""
        try:
            await self._write([charge for _, charge in found])
        except (IntegrityError, DataError) as error:
            if len(found) > 1:
                for one in found:
                    await self._move([one])
                return
            why = str(error.orig)[:300]
            log.error("ledger_refused", entry=found[0][0].id, call=found[0][1]["call_id"], why=why)
            await self._money.refuse(found[0][0], why)
            return
        await self._money.taken([entry.id for entry, _ in found])

    async def _write(self, charges: list[Charge]) -> None:
        tenant_id, item_id = UUID(charges[0]["tenant_id"]), UUID(charges[0]["work_item_id"])
        principal = service_principal("gateway", tenant_id)
        async with self._db.session_for(principal) as session:
            known = await rows.share_openings(session, tenant_id, {UUID(one["reservation_id"]) for one in charges})
            for charge in charges:
                if known.get(UUID(charge["reservation_id"])):
                    _after_the_close(charge)
            added = await rows.add(session, charges)
            new = [one for one in charges if (UUID(one["call_id"]), one["attempt"]) in added]
            await events.add_many(session, tenant_id, (_event(item_id, one) for one in new))
            for one in new:
                if one["beyond"]:
                    log.error("llm_overrun", call=one["call_id"], model=one["model"], beyond_nano=one["beyond"])
                    audit.record(
                        session,
                        principal,
                        kind="llm.overrun",
                        subject=f"call/{one['call_id']}",
                        summary=f"A call of {one['model']} came to more than it held: {one['detail']}",
                        work_item_id=item_id,
                        data={"held_nano": str(one["held_nano"]), "amount_nano": str(one["amount_nano"])},
                    )
        if new:
            await events.ring(self._cache, tenant_id, item_id)

    async def _bring_in(self, line: Line) -> None:
        """What Redis did not take when the call ended: settle it there, or note it here when that Redis is gone."""
        about, facts = json.loads(line["about"]), json.loads(line["facts"])
        settlement = Settlement(
            UUID(about["reservation_id"]),
            UUID(line["call"]),
            line["amount"],
            line["tokens"],
            line["kind"],
            line["facts"],
        )
        answer = await self._money.settle(settlement, line["identity"])
        if answer.state in (Money.SETTLED, Money.DONE):
            return
        amount = line["held"] if line["amount"] is None else min(line["amount"], line["held"])
        if not line["held"]:
            return  # a hold of which nobody knew whether it was taken, in a Redis that is gone
        entry = {"call": line["call"], "amount": amount, "held": line["held"], "kind": line["kind"]}
        try:
            await self._write([_charge({**entry, "wanted": amount}, about, facts)])
        except (IntegrityError, DataError) as error:
            log.error("ledger_refused", call=line["call"], line=line, why=str(error.orig)[:300])


def about_run(claims: RunClaims) -> str:
    """Whose calls they are: the beginning of what each hold of the run says, as JSON."""
    return (
        f'{{"tenant_id":"{claims.tenant}","reservation_id":"{claims.reservation}","work_item_id":"{claims.work_item}",'
        f'"run_id":"{claims.run}","assistant_id":"{claims.assistant}"'
    )


def about_call(run: str, card: RateCard, prices: str, *, streamed: bool, started_at: float) -> str:
    """What a hold says of its call, as JSON: enough for a ledger's row if nobody ever says more.

    Args:
        run: From `about_run`.
        card: In force when it began.
        prices: JSON text of its unit prices.
        streamed: Whether the answer streams.
        started_at: Unix seconds.
    """
    return (
        f'{run},"model":{json.dumps(card.model)},"card_version":{card.version},"prices":{prices},'
        f'"streamed":{"true" if streamed else "false"},"started_at":{started_at!r}}}'
    )


def facts_of_call(
    *, tokens: dict[str, Any] | None = None, upstream_id: str | None = None, status: int | None = None, detail: str = ""
) -> str:
    """What is known when it has ended, as JSON."""
    facts = {"tokens": tokens or {}, "id": upstream_id, "status": status, "detail": detail, "ended_at": time.time()}
    return json.dumps(facts, separators=(",", ":"))


def _charge(entry: dict[str, Any], about: dict[str, Any], facts: dict[str, Any]) -> Charge:
    amount, held, wanted = int(entry["amount"]), int(entry["held"]), int(entry["wanted"])
    detail = str(facts.get("detail") or "")
    if wanted > held:
        beyond = f"it came to {format_usd(wanted)}, of which {format_usd(wanted - amount)} could not be charged"
        detail = f"{detail}; {beyond}" if detail else beyond
    return {
        "tenant_id": about["tenant_id"],
        "call_id": entry["call"],
        "attempt": 1,
        "reservation_id": about["reservation_id"],
        "work_item_id": about["work_item_id"],
        "run_id": about["run_id"],
        "assistant_id": about["assistant_id"],
        "model": about["model"],
        "card_version": about["card_version"],
        "prices": about["prices"],
        "tokens": facts.get("tokens") or {},
        "held_nano": held,
        "amount_nano": amount,
        "kind": entry["kind"],
        "upstream_id": facts.get("id"),
        "upstream_status": facts.get("status"),
        "streamed": about["streamed"],
        "detail": detail[:500],
        "started_at": _moment(about["started_at"]),
        "ended_at": _moment(facts["ended_at"]),
        "beyond": max(0, wanted - held),
    }


def _after_the_close(charge: Charge) -> None:
    """The reservation was closed without this charge: its grant is charged whole, so that this is in it."""
    note = f"came to {format_usd(charge['amount_nano'])}, after the reservation was closed: it is in what was charged"
    charge["detail"] = f"{charge['detail']}; {note}" if charge["detail"] else note
    charge["amount_nano"] = 0


def _event(item_id: UUID, charge: Charge) -> ItemEvent:
    names = ("call_id", "model", "tokens", "kind", "upstream_status", "streamed", "detail", "started_at", "ended_at")
    return ItemEvent(
        work_item_id=item_id,
        kind=EventKind.LLM_CALL,
        data={
            **{name: charge[name] for name in names},
            "amount_nano": str(charge["amount_nano"]),
            "held_nano": str(charge["held_nano"]),
        },
        source=f"llm/{charge['call_id']}/{charge['attempt']}",
    )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
