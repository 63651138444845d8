"""Rate cards: versions that are only ever added, and a copy of those in force for the processes that price calls."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import rfc8785
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.errors import NotFound
from models.domain.rate_card import RateCard
from models.repositories import paging
from models.repositories import rate_cards as rows
from models.storage.db import Database
from models.tables.llm import RateCardRow

LISTED_BY_UPSTREAM = "list of "
"""How the source of a card begins that an upstream's own list gave."""
MOST_VERSIONS = 200
_A_BATCH = 500
_OF_THE_ROW = {"model", "version", "effective_from", "source"}


class RateCards:
    """The cards in force, in memory: looked up without I/O, read anew by `refresh`."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._count = -1
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._made: dict[tuple[str, int], RateCard] = {}

    async def refresh(self) -> bool:
        """Read what has been added; whether anything was. One count of rows when there is nothing new."""
        # Rows are never changed and never deleted, so their number says whether there are new ones.
        count = int(await self._db.call(rows.COUNT))
        if count == self._count:
            return False
        found: dict[str, list[dict[str, Any]]] = {}
        for row in await self._db.rows(rows.IN_FORCE_AND_LATER):
            found.setdefault(row["model"], []).append(row)
        self._rows, self._count, self._made = found, count, {}
        return True

    def get(self, model: str, at: datetime | None = None) -> RateCard | None:
        """The card of a model in force now, or at a moment after the last `refresh`; None: it has no price."""
        moment = at or datetime.now(UTC)
        for row in reversed(self._rows.get(model, ())):
            # What the database's clock had in force is so, even where this machine's is late.
            if row["in_force"] or row["effective_from"] <= moment:
                return self._card(row)
        return None

    def models(self) -> list[str]:
        """Names of the models that have a card, sorted."""
        return sorted(self._rows)

    def _card(self, row: dict[str, Any]) -> RateCard:
        # Made at the first look: there are thousands, and few are asked for.
        key = (row["model"], row["version"])
        card = self._made.get(key)
        if card is None:
            card = self._made[key] = _read(row)
        return card


async def moment(db: Database) -> datetime:
    """The database's clock: what is in force from now on is in force for every reader."""
    now: datetime = await db.call("SELECT now()")
    return now


async def add(db: Database, cards: Iterable[RateCard], *, over_listed: bool = True) -> int:
    """Add cards as their models' next versions, in force from their `effective_from`; unchanged ones add nothing.

    Args:
        db: Of `awgp_app` or `awgp_system`.
        cards: One a model; their own `version` means nothing.
        over_listed: Whether they come after one that an upstream's own list gave.

    Returns:
        How many versions were added.
    """
    newest = {row["model"]: row for row in await db.rows(rows.NEWEST)}
    wanted: list[dict[str, str]] = []
    for card in cards:
        digest, known = digest_of(card), newest.get(card.model)
        if known is not None and known["digest"] == digest:
            continue
        if known is not None and not over_listed and known["source"].startswith(LISTED_BY_UPSTREAM):
            continue
        wanted.append(_written(card, digest))
    wanted.sort(key=lambda card: card["model"])
    for start in range(0, len(wanted), _A_BATCH):
        await db.change(rows.ADD, cards=json.dumps(wanted[start : start + _A_BATCH]))
    return len(wanted)


def digest_of(card: RateCard) -> str:
    """SHA-256 over what a card says, without when, who and which version."""
    return hashlib.sha256(rfc8785.dumps(_said(card))).hexdigest()


def _said(card: RateCard) -> dict[str, Any]:
    return card.model_dump(mode="json", exclude=_OF_THE_ROW)


def _written(card: RateCard, digest: str) -> dict[str, Any]:
    since = card.effective_from.isoformat()
    return {"model": card.model, "since": since, "card": _said(card), "digest": digest, "source": card.source}


def _read(row: dict[str, Any]) -> RateCard:
    of_row = {name: row[name] for name in _OF_THE_ROW}
    return RateCard.model_validate({**row["card"], **of_row})


def of_row(row: RateCardRow) -> RateCard:
    """The card that a row keeps."""
    return _read(row.model_dump())


async def list_page(
    session: AsyncSession, cursor: str | None = None, limit: int = 50, containing: str = ""
) -> tuple[list[RateCard], str | None]:
    """Cards in force by name, and the next cursor.

    Args:
        session: Any tenant's: prices are the same for all.
        cursor: Of the page before.
        limit: Most entries.
        containing: Models alone whose name contains this.
    """
    size = paging.page_size(limit)
    found = await rows.page(session, paging.name_after(cursor), containing, size + 1)
    page = [of_row(row) for row in found[:size]]
    return page, paging.cursor_of_name(page[-1].model) if len(found) > size else None


async def history(session: AsyncSession, model: str) -> list[RateCard]:
    """A model's versions, newest first.

    Raises:
        NotFound: It has none.
    """
    found = await rows.versions(session, model, MOST_VERSIONS)
    if not found:
        raise NotFound(f"there is no price of the model {model[:200]!r}, so no call of it is let through")
    return [of_row(row) for row in found]
