"""Each activity's stub, which workflows import, says what its implementation takes and answers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest
from pydantic import BaseModel
from temporalio import activity

from activities import (
    approval,
    delivery,
    effects,
    following,
    money,
    placing,
    reconcile,
    signatures,
    warrants,
    work_item,
)

IMPLEMENTATIONS = (
    work_item.WorkItems,
    approval.Approvals,
    money.Money,
    warrants.Warrants,
    placing.Placing,
    following.Following,
    following.LostRuns,
    delivery.Deliveries,
    effects.Effects,
    reconcile.Reconciliation,
)
MOST_FIELDS = 20
"""A value with more is a document, and documents live in the blob store."""


def _name(function: Any) -> str | None:
    found = activity._Definition.from_callable(function)  # pyright: ignore[reportPrivateUsage] - no public way
    return found.name if found is not None else None


def _named(owner: object) -> dict[str, Callable[..., Any]]:
    functions = [function for _, function in inspect.getmembers(owner, inspect.isfunction)]
    return {name: function for function in functions if (name := _name(function)) is not None}


STUBS = _named(signatures)
IMPLEMENTED = {name: function for owner in IMPLEMENTATIONS for name, function in _named(owner).items()}


def _shape(function: Callable[..., Any]) -> tuple[list[Any], Any]:
    hints = get_type_hints(function)
    answer = hints.pop("return")
    return list(hints.values()), answer


def test_every_stub_is_implemented_once_and_nothing_else_is() -> None:
    assert STUBS.keys() == IMPLEMENTED.keys()
    names = [name for owner in IMPLEMENTATIONS for name in _named(owner)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", sorted(STUBS))
def test_a_stub_takes_and_answers_what_its_implementation_does(name: str) -> None:
    assert _shape(STUBS[name]) == _shape(IMPLEMENTED[name])


@pytest.mark.parametrize("name", sorted(STUBS))
def test_one_frozen_value_goes_in_and_one_comes_out(name: str) -> None:
    takes, answer = _shape(STUBS[name])
    assert len(takes) == 1
    for value in (takes[0], answer):
        assert issubclass(value, BaseModel)
        assert value.model_config.get("frozen")
        assert len(value.model_fields) <= MOST_FIELDS


async def test_a_stub_is_never_run() -> None:
    with pytest.raises(NotImplementedError):
        await signatures.assess_work_item(None)  # pyright: ignore[reportArgumentType]
