"""Waiting that ends: nothing here sleeps for luck."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

T = TypeVar("T")

PAUSE_SECONDS = 0.15


async def eventually(check: Callable[[], T | Awaitable[T]], seconds: float, words: str) -> T:
    """The first answer of `check` that is true.

    Raises:
        AssertionError: There was none in time; says `words` and what was answered last.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = check()
        found = await answer if inspect.isawaitable(answer) else cast(T, answer)
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {seconds:.0f} s: {words}; last: {found!r}")
        await asyncio.sleep(PAUSE_SECONDS)
