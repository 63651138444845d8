"""Reading a run's output as it comes: the durable chunks, then the tail; resumable from any offset."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from models.domain.principal import Principal
from models.storage.blobs import BlobStore
from models.storage.cache import Cache
from models.storage.db import Database


@dataclass(frozen=True)
class LogPiece:
    """Bytes of one attempt's combined output.

    Attributes:
        offset: Of its first byte.
        data: The bytes; not cut at characters.
    """

    attempt: int
    offset: int
    stream: str
    at: datetime
    data: bytes

    @property
    def event_id(self) -> str:
        """`attempt.offset` just past this piece: what `Last-Event-ID` gives back."""
        return f"{self.attempt}.{self.offset + len(self.data)}"


def read(
    db: Database,
    blobs: BlobStore,
    cache: Cache | None,
    principal: Principal,
    work_item_id: UUID,
    *,
    after: str = "",
    follow: bool = True,
    tenant_id: UUID | None = None,
) -> AsyncIterator[LogPiece]:
    """Yield the output from `after` (`attempt.offset`, empty: from the start), and go on until the item is final.

    Args:
        follow: False: what there is now, and no more.
        tenant_id: The item's tenant where it is not the principal's (a holding that reads a subsidiary's).

    Raises:
        NotFound: There is no such item (at the first step of the iteration).
        InvalidInput: `after` cannot be read.
    """
    raise NotImplementedError
