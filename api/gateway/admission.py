"""Letting a call through: who asks, whether that run lives, which model, at what worst case, and the hold for it."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from api.gateway import refusals
from api.gateway.price_book import Patterns, PriceBook, allows
from models.domain.errors import DependencyAway, Forbidden
from models.domain.llm import Asked, Bound
from models.domain.principal import service_principal
from models.domain.rate_card import RateCard
from models.rules import llm_cost
from models.services import llm_openings
from models.services.ids import new_id
from models.services.llm_ledger import about_call, about_run
from models.services.llm_openings import Opening
from models.services.run_credentials import LiveRuns, RunClaims, RunWarrants
from models.storage.db import Database
from models.storage.llm_money import Answer, Hold, LlmMoney, Money, RedisAwayError

MOST_KEPT = 10_000
REDIS_AWAY = "Redis does not answer, so nothing can be held for this call"
ANOTHER_LIFE = (
    "Redis has lost its memory since this work item began to call models: it may call none until it has ended and is"
    " reconciled"
)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A call for which its worst case is held.

    Attributes:
        cards: In force when it began: of the model asked for, and of those that the upstream may take instead.
        put_in: The output cap to put into the request, which has none of its own.
    """

    call: UUID
    reservation: UUID
    identity: str
    about: str
    asked: Asked
    cards: tuple[RateCard, ...]
    bound: Bound
    held: int
    put_in: int | None
    started: float


class UnsureHoldError(DependencyAway):
    """Redis did not say whether it holds; what it may hold must be given back."""

    def __init__(self, admitted: Admitted) -> None:
        super().__init__(REDIS_AWAY, dependency="redis")
        self.admitted = admitted


@dataclass(frozen=True, slots=True)
class _Opened:
    opening: Opening
    run: str


class Admission:
    """Holds for calls.

    Args:
        db: The application's role: openings, and copies of runs.
        money: Redis.
        warrants: Verifies the bearer's token.
        runs: Copies of runs, at most 5 s old.
        prices: The cards in force.
    """

    def __init__(self, db: Database, money: LlmMoney, warrants: RunWarrants, runs: LiveRuns, prices: PriceBook) -> None:
        self._db = db
        self._money = money
        self._warrants = warrants
        self._runs = runs
        self._prices = prices
        self._opened: OrderedDict[UUID, _Opened] = OrderedDict()
        self._opening: dict[UUID, asyncio.Task[_Opened]] = {}
        self._terms: OrderedDict[UUID, Patterns] = OrderedDict()

    async def who(self, token: str) -> RunClaims:
        """The run whose warrant this is, live.

        Raises:
            Unauthenticated: It is no warrant.
            Forbidden: The run, or its warrant, does not hold any more.
            DependencyAway: PostgreSQL cannot say.
        """
        claims = self._warrants.claims(token)
        await self._runs.check(claims)
        return claims

    async def models(self, claims: RunClaims) -> Patterns:
        """The patterns that bound which models the run may call."""
        found = self._terms.get(claims.run)
        if found is None:
            try:
                async with self._db.tenant_session(claims.tenant) as session:
                    found = await llm_openings.model_patterns(session, claims.work_item)
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                raise DependencyAway("PostgreSQL did not say which models", dependency="postgres") from error
            self._terms[claims.run] = found
            _bounded(self._terms)
        return found

    async def admit(self, claims: RunClaims, asked: Asked, started: float) -> Admitted:
        """Hold the call's worst case.

        Raises:
            AwgpError: It is refused; the error says what is short and what would fit.
        """
        opened = await self._open(claims)
        cards = self._cards(asked, opened.opening.models)
        bound = _dearest([llm_cost.bound(card, asked) for card in cards])
        most, least = self._caps(asked, bound, opened.opening)
        prices = self._prices.prices(cards[0])
        hold = Hold(
            reservation=claims.reservation,
            call=new_id(),
            most=llm_cost.worst_case(bound, most),
            least=llm_cost.worst_case(bound, least),
            most_tokens=_tokens(bound, asked, most),
            least_tokens=_tokens(bound, asked, least),
            rpm=opened.opening.rpm,
            tpm=opened.opening.tpm,
            about=about_call(opened.run, cards[0], prices, streamed=asked.stream, started_at=started),
        )
        identity = opened.opening.identity
        unsure = Admitted(
            hold.call, hold.reservation, identity, hold.about, asked, cards, bound, 0, None, time.monotonic()
        )
        answer = await self._hold(hold, unsure)
        if answer.state in (Money.MISSING, Money.CLOSED):
            # Closed and reconciled, and this is a later attempt; or never opened: PostgreSQL says.
            self._opened.pop(claims.reservation, None)
            opened = await self._open(claims)
            answer = await self._hold(hold, unsure)
        if answer.state is not Money.HELD:
            raise self._refusal(answer, claims, asked, bound, hold, least)
        held, tokens = answer.numbers
        put_in = None if asked.cap is not None else _cap(bound, asked, held, tokens)
        return Admitted(
            hold.call, hold.reservation, opened.opening.identity, hold.about, asked, cards, bound, held, put_in,
            unsure.started,
        )  # fmt: skip

    async def _hold(self, hold: Hold, unsure: Admitted) -> Answer:
        try:
            return await self._money.hold(hold)
        except RedisAwayError as error:
            if error.unsure:
                raise UnsureHoldError(unsure) from error
            raise DependencyAway(REDIS_AWAY, dependency="redis") from error

    def _refusal(
        self, answer: Answer, claims: RunClaims, asked: Asked, bound: Bound, hold: Hold, cap: int
    ) -> Exception:
        match answer.state:
            case Money.SHORT:
                opened = self._opened.get(claims.reservation)
                cheaper = self._prices.cheap(opened.opening.models) if opened else []
                others = [card for card in cheaper if card.model not in asked.models]
                return refusals.short(answer.numbers, asked, bound, cap, others)
            case Money.RPM:
                return refusals.too_fast("calls", answer.numbers, 1)
            case Money.TPM:
                return refusals.too_fast("tokens", answer.numbers, hold.least_tokens)
            case Money.CLOSED:
                return Forbidden("the run is over: what it spent on models is being settled", code="closed")
            case _:
                self._opened.pop(claims.reservation, None)
                return DependencyAway(ANOTHER_LIFE, dependency="redis", code="redis_another_life")

    def _cards(self, asked: Asked, patterns: Patterns) -> tuple[RateCard, ...]:
        cards: list[RateCard] = []
        for model in asked.models:
            if not allows(patterns, model):
                raise refusals.not_allowed(model, patterns)
            card = self._prices.card(model)
            if card is None:
                raise refusals.unpriced(model)
            cards.append(card)
        return tuple(cards)

    def _caps(self, asked: Asked, bound: Bound, opening: Opening) -> tuple[int, int]:
        """The output cap to hold for: the most, and the least that would do."""
        if asked.cap is not None:
            return asked.cap, asked.cap
        # A minute that could never carry the card's limit would refuse every call that leaves the cap to us.
        by_minute = (opening.tpm - bound.prompt_tokens - asked.predicted) // bound.choices
        most = max(min(bound.most, by_minute), 1)
        return most, min(llm_cost.LEAST_CAP, most)

    async def _open(self, claims: RunClaims) -> _Opened:
        opened = self._opened.get(claims.reservation)
        if opened is not None:
            return opened
        task = self._opening.get(claims.reservation)
        if task is None:
            task = self._opening[claims.reservation] = asyncio.create_task(self._open_now(claims))
            task.add_done_callback(lambda _: self._opening.pop(claims.reservation, None))
        return await asyncio.shield(task)

    async def _open_now(self, claims: RunClaims) -> _Opened:
        """INVARIANT: PostgreSQL knows before Redis does, so what Redis divides is always found again."""
        principal = service_principal("gateway", claims.tenant)
        try:
            identity = await self._money.identity()
            async with asyncio.timeout(10), self._db.session_for(principal) as session:
                opening = await llm_openings.open_reservation(session, principal, claims, identity)
            answer = await self._money.open(
                opening.reservation_id, identity, opening.token, opening.limit, opening.charged
            )
        except RedisAwayError as error:
            raise DependencyAway(REDIS_AWAY, dependency="redis") from error
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            raise DependencyAway("PostgreSQL did not open the reservation", dependency="postgres") from error
        if answer.state is not Money.OPEN:
            raise DependencyAway(ANOTHER_LIFE, dependency="redis", code="redis_another_life")
        opened = self._opened[claims.reservation] = _Opened(opening, about_run(claims))
        _bounded(self._opened)
        return opened


def _dearest(bounds: list[Bound]) -> Bound:
    if len(bounds) == 1:
        return bounds[0]
    return Bound(*(max(values) for values in zip(*bounds, strict=True)))


def _tokens(bound: Bound, asked: Asked, cap: int) -> int:
    return bound.prompt_tokens + asked.predicted + cap * bound.choices


def _cap(bound: Bound, asked: Asked, held: int, tokens: int) -> int:
    """The cap that what was granted carries."""
    by_tokens = (tokens - bound.prompt_tokens - asked.predicted) // bound.choices
    return max(min(llm_cost.cap_for(bound, held), by_tokens), 1)


def _bounded(kept: OrderedDict[UUID, _Opened] | OrderedDict[UUID, Patterns]) -> None:
    if len(kept) > MOST_KEPT:
        kept.popitem(last=False)
