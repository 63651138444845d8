"""What a work item has cost so far, split by what it was for."""

from __future__ import annotations

import base64
import binascii
from uuid import UUID

from pydantic import Field
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.errors import InvalidInput
from models.domain.principal import Principal
from models.domain.views import View
from models.repositories import costs as rows
from models.repositories import paging
from models.services import work_items
from models.tables.llm import LlmChargeRow

SANDBOX = "sandbox_time"


class CostSplit(View):
    """Nano-USD and counts.

    Attributes:
        sandbox: The price of the sandbox's time; 0 until the item is settled.
        llm: Of its model calls, as they are settled one by one.
        estimated: How many of the calls are charged by estimate.
        tokens: By class.
    """

    sandbox: int = 0
    llm: int = 0
    calls: int = 0
    estimated: int = 0
    tokens: dict[str, int] = Field(default_factory=dict)

    @property
    def total(self) -> int:
        """Of both."""
        return self.sandbox + self.llm


async def split(session: AsyncSession, work_item_id: UUID) -> CostSplit:
    """The item's cost as the ledgers have it; the session has been seen to see the item."""
    charged = await rows.charged_by_kind(session, work_item_id)
    calls, llm, estimated = await rows.calls(session, work_item_id)
    tokens = await rows.tokens(session, work_item_id) if calls else {}
    return CostSplit(sandbox=charged.get(SANDBOX, 0), llm=llm, calls=calls, estimated=estimated, tokens=tokens)


async def page(
    session: AsyncSession, principal: Principal, work_item_id: UUID, cursor: str | None, limit: int
) -> tuple[list[LlmChargeRow], str | None]:
    """The ledger's rows of the item's model calls, the oldest first, and the next cursor (None at the end).

    Raises:
        NotFound: The principal's company does not see the item.
        InvalidInput: The cursor is none that a page gave.
    """
    await work_items.read(session, principal, work_item_id)
    size = paging.page_size(limit)
    found = await rows.page(session, work_item_id, _after(cursor), size + 1)
    page = found[:size]
    return page, _cursor(page[-1]) if len(found) > size else None


def _cursor(row: LlmChargeRow) -> str:
    return base64.urlsafe_b64encode(row.call_id.bytes + row.attempt.to_bytes(4)).decode().rstrip("=")


def _after(cursor: str | None) -> tuple[UUID, int] | None:
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return UUID(bytes=raw[:16]), min(int.from_bytes(raw[16:]), 2**31 - 1) if len(raw) == 20 else _unknown()
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(
            "the cursor is none that a page gave", errors=[{"where": "cursor", "what": "unknown cursor"}]
        ) from error


def _unknown() -> int:
    raise ValueError("not of a call's length")
