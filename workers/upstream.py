"""`python -m workers.upstream`: the scripted upstream, on loopback alone. It is not a model, and says so."""

from __future__ import annotations

import ipaddress
import logging

import structlog
import uvicorn

from api.gateway.scripted import ScriptedUpstream
from models.settings import Settings
from workers.process import set_up_logging

log = structlog.get_logger(__name__)


def refuse_unless_loopback(host: str) -> None:
    """End the process when anybody but this machine could take its answers for a model's.

    Raises:
        SystemExit: The address is not a loopback address.
    """
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise SystemExit(f"AWGP_SCRIPTED_HOST is {host!r}: the scripted upstream listens on a loopback address alone")


def main() -> None:
    """Serve until told to stop."""
    settings = Settings()
    set_up_logging(settings.log_level)
    refuse_unless_loopback(settings.scripted_host)
    # A cut that a script asks for is no fault, but uvicorn tells each as one.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    log.warning("scripted_upstream", words="Answers come from scripts: there is no model here.")
    uvicorn.run(
        ScriptedUpstream(
            settings.scripted_log,
            api_key=settings.scripted_key.get_secret_value() if settings.scripted_key else "",
            with_cost=settings.scripted_cost,
        ),
        host=settings.scripted_host,
        port=settings.scripted_port,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=120,
        timeout_graceful_shutdown=3,
    )


if __name__ == "__main__":
    main()
