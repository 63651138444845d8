"""The LLM gateway: ``python -m workers.gateway``. It alone meters model calls, and it alone holds the provider's key.

Any number may run. It holds no truth: money is in Redis under a durable hold in PostgreSQL, and what it could not bring
there is on its disk until the next one of this machine brings it in.
"""

from __future__ import annotations

import structlog
import uvicorn

from api.gateway.admission import Admission
from api.gateway.app import Gateway, Parts
from api.gateway.price_book import PriceBook
from api.gateway.price_feed import PriceFeed
from api.gateway.settling import Settling
from api.gateway.upstream import Upstream
from models.services.llm_ledger import Flusher
from models.services.llm_spool import LlmSpool
from models.services.rate_cards import RateCards
from models.services.run_credentials import LiveRuns, RunWarrants
from models.services.warrant_keys import JwksVerifier
from models.settings import Settings
from models.storage.cache import Cache
from models.storage.db import Database
from models.storage.llm_money import LlmMoney
from workers.process import set_up_logging

GRACEFUL_SECONDS = 5
"""For streams to end at a stop; then they are cut, and charged for what had come."""

log = structlog.get_logger("gateway")


def build(settings: Settings) -> Gateway:
    """Put the gateway together; nothing is asked yet, so the order of starting does not matter."""
    if not settings.warrant_public_jwks:
        raise SystemExit("setting AWGP_WARRANT_PUBLIC_JWKS is missing: without it no run can be told from another")
    db = Database(settings.secret("database_app_url"), pool_size=settings.database_pool_size)
    money, pages = LlmMoney(settings.secret("redis_url")), LlmMoney(settings.secret("redis_url"))
    cache = Cache(settings.secret("redis_url"), settings.secret("redis_tenant_key"))
    spool = LlmSpool(settings.data / "llm-spool")
    prices = PriceBook(RateCards(db))
    settling = Settling(money, spool)
    warrants = RunWarrants(JwksVerifier(settings.warrant_public_jwks))
    upstream = Upstream(settings.llm_upstream, settings.llm_key)
    if not settings.llm_upstream_url and not settings.llm_key:
        log.warning("scripted_upstream", url=upstream.url, means="there is no key: answers come from scripts, no model")

    async def prices_read() -> None:
        await prices.refresh()

    return Gateway(
        Parts(
            admission=Admission(db, money, warrants, LiveRuns(db), prices),
            upstream=upstream,
            settling=settling,
            flusher=Flusher(db, pages, spool, cache),
            spool=spool,
            prices=prices,
            feed=PriceFeed(db, upstream.url, settings.llm_key),
            cap_field=settings.llm_cap_field,
            checks={"postgres": db.ping, "redis": money.identity, "prices": prices_read},
            close=(money.shut, pages.shut, cache.close, db.close),
        )
    )


def main() -> None:
    """Serve until told to stop."""
    settings = Settings()
    set_up_logging(settings.log_level)
    uvicorn.run(
        build(settings),  # pyright: ignore[reportArgumentType]
        host=settings.gateway_host,
        port=settings.gateway_port,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=120,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )


if __name__ == "__main__":
    main()
