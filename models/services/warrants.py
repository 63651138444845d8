"""Minting a warrant: everything that allows a run is recomputed in one transaction, then signed."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.errors import WarrantRefused
from models.domain.principal import Principal
from models.services.warrant_keys import WarrantSigner


class MintState(StrEnum):
    """What came of a request for a warrant (the same words as `activities.signatures.WarrantState`)."""

    MINTED = "minted"
    HALTED = "halted"
    BUDGET = "budget"
    """The item was moved back to `awaiting_budget`: reserve again."""
    ENDED = "ended"


class MintResult(BaseModel):
    """Names the warrant without showing it."""

    model_config = ConfigDict(frozen=True)

    state: MintState
    run_id: UUID | None = None
    attempt: int = 0
    claim_before: datetime | None = None
    words: str = ""


async def mint(
    session: AsyncSession, principal: Principal, work_item_id: UUID, signer: WarrantSigner
) -> MintResult:
    """Recompute everything and, if all of it holds, write the signed warrant; repeatable.

    Raises:
        WarrantRefused: What was approved is not what would run, or it was not approved. Asking again does not help;
            the caller records it with `record_refusal` in a transaction of its own.
        NotFound: There is no such item.
    """
    raise NotImplementedError


async def record_refusal(
    session: AsyncSession, principal: Principal, work_item_id: UUID, refusal: WarrantRefused
) -> None:
    """Audit a refusal, in a transaction of its own."""
    raise NotImplementedError


async def revoke_live(session: AsyncSession, principal: Principal, work_item_id: UUID, reason: str) -> int:
    """Revoke the item's unclaimed warrants (audited); answers how many. `lifecycle.close` calls this."""
    raise NotImplementedError
