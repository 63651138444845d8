"""What every process of the control plane does at its start and end: logs, waiting for what it needs, signals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable

import structlog

FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 5.0

log = structlog.get_logger("awgp")


def set_up_logging(level: str) -> None:
    """One JSON line an event on standard output."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(),
    )
    logging.basicConfig(level=level.upper(), format="%(levelname)s %(name)s %(message)s")


async def wait_for(name: str, probe: Callable[[], Awaitable[object]]) -> None:
    """Try `probe` until it does not raise, saying what is waited for; ended only by the process's own end."""
    delay = FIRST_WAIT_SECONDS
    while True:
        try:
            await probe()
        except Exception as error:
            log.warning("waiting", dependency=name, why=str(error).splitlines()[0][:200] if str(error) else repr(error))
            await asyncio.sleep(delay)
            delay = min(delay * 1.6, LONGEST_WAIT_SECONDS)
        else:
            return


def stop_event() -> asyncio.Event:
    """Set when the process is told to end (SIGTERM, SIGINT)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, but not past the moment at which the process is told to end."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
