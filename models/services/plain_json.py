"""What of a stranger's JSON PostgreSQL and canonical JSON can both hold."""

from __future__ import annotations

import math
from typing import Any, cast

MAX_DEPTH = 16
MAX_INTEGER = 2**53 - 1


def no_nul(text: str) -> str:
    """Refuse what PostgreSQL's text cannot hold."""
    if "\0" in text:
        raise ValueError("holds a NUL character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("is not Unicode text") from error
    return text


def plain_json(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse NUL characters, lone surrogates, deep nesting, and numbers that other readers would round."""
    _check(value, 0)
    return value


def _check_integer(value: int) -> None:
    if abs(value) > MAX_INTEGER:
        raise ValueError("holds an integer beyond 2^53; send it as text")


def _check_float(value: float) -> None:
    if not math.isfinite(value):
        raise ValueError("holds a number that is not finite")


def _check(value: object, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"is nested more than {MAX_DEPTH} deep")
    match value:
        case None | bool():
            return
        case str():
            no_nul(value)
        case int():
            _check_integer(value)
        case float():
            _check_float(value)
        case dict():
            for key, inner in cast("dict[object, object]", value).items():
                if not isinstance(key, str):
                    raise ValueError("a key must be text")
                no_nul(key)
                _check(inner, depth + 1)
        case list() | tuple():
            for inner in cast("list[object]", value):
                _check(inner, depth + 1)
        case _:
            raise ValueError(f"holds a {type(value).__name__}, which JSON does not have")
