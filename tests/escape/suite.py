"""All parts of the suite, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tests.escape import (
    alone,
    alone_attempts,
    bridge_attempts,
    credential_attempts,
    credentials,
    fence,
    fence_attempts,
    guest_attempts,
)
from tests.escape.ground import Ground
from tests.escape.table import Attempt, Report

TOGETHER = {
    "fence": fence_attempts.ATTEMPTS,
    "bridge": bridge_attempts.ATTEMPTS,
    "guest": guest_attempts.ATTEMPTS,
}
"""Attacks that share a sandbox, by part."""
ATTEMPTS: list[Attempt] = [
    *(attempt for attempts in TOGETHER.values() for attempt in attempts),
    *(lone.attempt for lone in alone_attempts.ATTEMPTS),
    *credential_attempts.ATTEMPTS,
]


async def play(ground: Ground) -> AsyncIterator[Report]:
    """Every attempt with its control."""
    for attempts in TOGETHER.values():
        for report in await fence.reports(ground, attempts):
            yield report
    for lone in alone_attempts.ATTEMPTS:
        yield await alone.report(ground, lone)
    for report in await asyncio.to_thread(credentials.reports):
        yield report


def line(report: Report) -> str:
    """One line for people."""
    control = f"control: {report.control.said}" if report.control else f"no control: {report.why_none}"
    shown = "FAULT" if report.fault else "held"
    text = f"{shown:5} {report.attempt.name:45} {report.fault or report.verdict.said} | {control}"
    return text.replace("\n", " ")[:230]
