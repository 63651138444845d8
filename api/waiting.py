"""Long polls: an answer when something has come of it, or when the time is over; no longer than the caller listens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar
from uuid import UUID

from fastapi import Query

from api.deps import Deps

POLL_SECONDS = 2.0
"""A ring wakes the wait; looking behind it bounds how late an answer comes without Redis."""
LOOK_UP_SECONDS = 1.0
"""How often it is seen whether the caller is still there."""
MOST_SECONDS = 60.0

Answer = TypeVar("Answer")
Gone = Callable[[], Awaitable[bool]]

Wait = Annotated[
    float, Query(ge=0, le=MOST_SECONDS, allow_inf_nan=False, description="Seconds to wait for something to come of it.")
]


async def until(
    gone: Gone,
    given: Deps,
    tenant_id: UUID,
    channel: str,
    seconds: float,
    look: Callable[[], Awaitable[tuple[Answer, bool]]],
) -> Answer:
    """What `look` answers once it says that it is settled, or after `seconds`; ends when the caller has gone.

    Args:
        gone: Whether the caller has hung up.
        given: Where the rings come from.
        tenant_id: Whose channel it is.
        channel: Rung by whoever changes what is looked at.
        seconds: At most so long.
        look: Reads it anew, and says whether it is settled.
    """
    answer, settled = await look()
    if settled or seconds <= 0:
        return answer
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    async with given.cache.listen(tenant_id, channel) as bell:
        seen = 0.0
        while True:
            left = end - loop.time()
            # Looked at anew at a ring, now and then without one, and once more at the end; first of all after listening
            # has begun, since a ring in between was heard by nobody.
            if loop.time() - seen >= POLL_SECONDS or left <= 0:
                answer, settled = await look()
                seen = loop.time()
            if settled or left <= 0 or await gone():
                return answer
            if await bell.wait(min(LOOK_UP_SECONDS, left)):
                seen = 0.0
