"""What may be done next about an effect."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.effect import MOST_TRIES, Next, Try, TryState, next_step

S = TryState
NOBODY: frozenset[UUID] = frozenset()


def tries(*states: TryState | tuple[TryState, bool]) -> list[Try]:
    pairs = [state if isinstance(state, tuple) else (state, True) for state in states]
    return [Try(state, UUID(int=number), sent) for number, (state, sent) in enumerate(pairs, 1)]


NOT_SENT = (S.FAILED, False)


@pytest.mark.parametrize(
    ("made", "granted", "unkeyed", "keyed"),
    [
        ((), (), Next.PERFORM, Next.PERFORM),
        ((S.SENT,), (), Next.UNDER_WAY, Next.UNDER_WAY),
        ((S.PERFORMED,), (), Next.PERFORMED, Next.PERFORMED),
        ((S.FAILED,), (), Next.FAILED, Next.FAILED),
        ((NOT_SENT,), (), Next.PERFORM, Next.PERFORM),
        ((NOT_SENT,) * MOST_TRIES, (), Next.FAILED, Next.FAILED),
        ((S.UNKNOWN,), (), Next.ASK, Next.PERFORM),
        ((S.UNKNOWN,), (1,), Next.PERFORM, Next.PERFORM),
        ((S.UNKNOWN, S.UNKNOWN), (1,), Next.ASK, Next.PERFORM),
        ((S.UNKNOWN, NOT_SENT), (), Next.ASK, Next.PERFORM),
        ((S.UNKNOWN, NOT_SENT), (1,), Next.PERFORM, Next.PERFORM),
        ((S.UNKNOWN,) * MOST_TRIES, (), Next.ASK, Next.ASK),
        ((S.UNKNOWN,) * MOST_TRIES, (MOST_TRIES,), Next.ASK, Next.PERFORM),
        ((S.UNKNOWN, S.PERFORMED), (), Next.PERFORMED, Next.PERFORMED),
        ((S.PERFORMED, NOT_SENT), (), Next.PERFORMED, Next.PERFORMED),
    ],
)
def test_what_is_next(made: tuple[TryState, ...], granted: tuple[int, ...], unkeyed: Next, keyed: Next) -> None:
    said = frozenset(UUID(int=number) for number in granted)
    assert next_step(tries(*made), said, repeatable=False) is unkeyed
    assert next_step(tries(*made), said, repeatable=True) is keyed


@given(st.lists(st.sampled_from([S.SENT, S.PERFORMED, S.FAILED, S.UNKNOWN, NOT_SENT]), max_size=12))
def test_without_a_key_nothing_that_may_have_been_done_is_done_again_unasked(made: list[object]) -> None:
    done = tries(*made)  # type: ignore[arg-type]
    if next_step(done, NOBODY, repeatable=False) is Next.PERFORM:
        assert all(one.state is S.FAILED and not one.was_sent for one in done if one is done[-1])
        assert not any(one.state in (S.SENT, S.UNKNOWN, S.PERFORMED) for one in done[-1:])
        assert not any(one.state is S.UNKNOWN for one in done)


@given(st.integers(0, 40), st.booleans())
def test_tries_are_bounded(number: int, keyed: bool) -> None:
    allowed = next_step(tries(*[NOT_SENT] * number), NOBODY, repeatable=keyed) is Next.PERFORM
    assert allowed == (number < MOST_TRIES)
