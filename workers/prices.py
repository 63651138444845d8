"""`python -m workers.prices`: rate cards of what is known without asking anybody, as new versions where one changed.

Part of set-up; safe to repeat. A running gateway adds what its upstream itself lists.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime

import structlog

from models.domain.rate_card import RateCard
from models.domain.scripted import SCRIPTED_MODELS
from models.services import price_sources, rate_cards
from models.settings import Settings
from models.storage.db import Database
from workers.process import set_up_logging

log = structlog.get_logger(__name__)


def packaged(at: datetime) -> list[RateCard]:
    """Every card that is known without asking anybody: of the price package, and of the scripted models."""
    scripted = price_sources.from_list({"data": list(SCRIPTED_MODELS)}, at, "scripted (not a model)")
    return [*price_sources.from_package(at), *scripted]


async def fill(db: Database) -> int:
    """Add what is new; how many versions that were."""
    return await rate_cards.add(db, packaged(await rate_cards.moment(db)), over_listed=False)


async def _run(settings: Settings) -> None:
    began = time.monotonic()
    db = Database(settings.secret("database_app_url"), pool_size=1)
    try:
        added = await fill(db)
    finally:
        await db.close()
    log.info("prices", added=added, seconds=round(time.monotonic() - began, 2))


def main() -> None:
    """Fill the database that the settings name."""
    settings = Settings()
    set_up_logging(settings.log_level)
    asyncio.run(_run(settings))


if __name__ == "__main__":
    main()
