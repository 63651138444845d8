"""All parts of the suite, one after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tests.escape import fence, fence_attempts
from tests.escape.ground import Ground
from tests.escape.table import Attempt, Report

ATTEMPTS: list[Attempt] = [*fence_attempts.ATTEMPTS]


async def play(ground: Ground) -> AsyncIterator[Report]:
    """Every attempt with its control."""
    for report in await fence.reports(ground, fence_attempts.ATTEMPTS):
        yield report


def line(report: Report) -> str:
    """One line for people."""
    control = f"control: {report.control.said}" if report.control else f"no control: {report.why_none}"
    shown = "FAULT" if report.fault else "held"
    text = f"{shown:5} {report.attempt.name:45} {report.fault or report.verdict.said} | {control}"
    return text.replace("\n", " ")[:230]
