"""Hold and settle against a reference model: any order, twice, after a close, over restarts of a real Valkey."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule

from models.services.ids import new_id
from models.storage.llm_money import Answer, Hold, LlmMoney, Money, Settlement
from tests.fixtures.private_valkey import PrivateValkey

AMOUNTS = st.integers(0, 120)


@dataclass
class Model:
    """What must be so, counted by hand."""

    limit: int
    charged: int = 0
    holds: dict[UUID, int] = field(default_factory=dict)
    closed: bool = False
    lost: bool = False

    @property
    def held(self) -> int:
        return sum(self.holds.values())

    @property
    def left(self) -> int:
        return self.limit - self.charged - self.held


class HoldsAndSettlements(RuleBasedStateMachine):
    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._valkey = PrivateValkey(Path(self._folder.name))
        self._valkey.start()
        self._loop = asyncio.new_event_loop()
        self._money = self._do(_made(self._valkey.url))
        self._reservation, self._token = new_id(), 0
        self._identity = ""
        self._model = Model(0)

    def _do(self, work: Any) -> Any:
        return self._loop.run_until_complete(work)

    def teardown(self) -> None:
        self._do(self._money.shut())
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()
        self._valkey.kill()
        self._folder.cleanup()

    @initialize(limit=st.integers(0, 400))
    def first(self, limit: int) -> None:
        self._open(limit, 0)

    def _open(self, limit: int, charged: int) -> None:
        self._token += 1
        self._identity = self._do(self._money.identity())
        opened = self._do(self._money.open(self._reservation, self._identity, self._token, limit, charged))
        assert opened.state is Money.OPEN
        self._model = Model(limit, charged)

    @rule(target=calls, most=AMOUNTS, least=AMOUNTS)
    def hold(self, most: int, least: int) -> Any:
        least = min(least, most)
        call, model = new_id(), self._model
        answer: Answer = self._do(
            self._money.hold(Hold(self._reservation, call, most, least, 1, 1, 10**6, 10**9, "{}"))
        )
        if model.lost or model.closed:
            assert answer.state is (Money.LOST if model.lost else Money.CLOSED)
        elif model.left < least:
            assert (answer.state, answer.numbers) == (Money.SHORT, (model.limit, model.charged, model.held))
        else:
            assert (answer.state, answer.numbers[0]) == (Money.HELD, min(most, model.left))
            model.holds[call] = answer.numbers[0]
            return call
        return multiple()

    @rule(call=calls, amount=st.none() | AMOUNTS)
    def settle(self, call: UUID, amount: int | None) -> None:
        model = self._model
        answer: Answer = self._do(self._money.settle(Settlement(self._reservation, call, amount, None, "final", "{}")))
        if model.lost:
            assert answer.state is Money.LOST
        elif call not in model.holds:
            assert answer.state is Money.DONE
        else:
            held = model.holds[call]
            taken = min(held if amount is None else amount, held + model.left)
            del model.holds[call]
            model.charged += taken
            assert (answer.state, answer.numbers) == (Money.SETTLED, (taken, held))

    @rule()
    def close(self) -> None:
        model = self._model
        answer: Answer = self._do(self._money.close(self._reservation, self._identity, self._token))
        if model.lost:
            assert answer.state is Money.LOST
        else:
            model.closed = True
            assert (answer.state, answer.numbers[0]) == (Money.CLOSED, model.charged)
            assert set(answer.calls) == {str(call) for call in model.holds}

    @precondition(lambda self: self._model.closed and not self._model.lost)
    @rule()
    def expire_and_open_again(self) -> None:
        for call in list(self._model.holds):
            self.settle(call, None)
        self._open(self._model.limit, self._model.charged)

    @precondition(lambda self: not self._model.lost)
    @rule()
    def open_once_more(self) -> None:
        """As another gateway does, which has read the same opening."""
        model = self._model
        answer: Answer = self._do(self._money.open(self._reservation, self._identity, self._token, model.limit, 0))
        assert answer.state is Money.OPEN

    @rule(empty=st.booleans())
    def restart(self, empty: bool) -> None:
        self._do(self._money.shut())
        self._valkey.kill()
        self._valkey.start()
        if empty:
            self._valkey.empty()
            self._open(50, 0)  # a new one, as that of another item is
        else:
            self._model.lost = True

    @precondition(lambda self: self._model.lost)
    @rule()
    def reconciled(self) -> None:
        """All of the grant is charged: it is opened again with nothing left."""
        self._open(self._model.limit, self._model.limit)

    @invariant()
    def never_more_than_the_grant(self) -> None:
        standing = self._do(self._money.standing(self._reservation))
        if standing:
            assert standing["charged"] + standing["held"] <= standing["limit"]
            if not self._model.lost:
                model = self._model
                assert standing == {
                    "limit": model.limit, "charged": model.charged, "held": model.held, "closed": int(model.closed),
                }  # fmt: skip


async def _made(url: str) -> LlmMoney:
    return LlmMoney(url)


TestHoldsAndSettlements = HoldsAndSettlements.TestCase
TestHoldsAndSettlements.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
