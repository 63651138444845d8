"""Settling an item that may still spend on models: what is open is closed first, then the same step is done again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

from models.services.llm_closing import ModelCloser
from models.services.llm_openings import ModelCallsOpen

Answer = TypeVar("Answer")


async def with_models_closed(
    closer: ModelCloser, tenant_id: UUID, work_item_id: UUID, step: Callable[[], Awaitable[Answer]]
) -> Answer:
    """Do a step that settles money; most items call no model, and for them it is that step alone.

    Args:
        closer: Asks Redis, outside any transaction.
        tenant_id: The item's.
        work_item_id: Whose money it is.
        step: One transaction; undone when it finds calls open.

    Raises:
        ModelCallsOpen: Calls are under way: the step's retry policy asks again, and they have an end.
    """
    try:
        return await step()
    except ModelCallsOpen:
        await closer.close(tenant_id, work_item_id)
        return await step()
