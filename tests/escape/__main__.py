"""`python -m tests.escape`: every attempt to get out or to do harm, each beside its control.

The last line is `attempts=… controls=… out=…`; out counts attacks that succeeded, and ones that proved nothing because
their control did not. The exit status is 0 only if it is 0.
"""

from __future__ import annotations

import asyncio
import logging
import sys

import structlog

from tests.escape.ground import Ground, ground
from tests.escape.suite import line, play
from tests.escape.table import Report
from tests.sandbox.private_engine import missing


async def run(made: Ground) -> list[Report]:
    reports: list[Report] = []
    async for report in play(made):
        print("  " + line(report), flush=True)
        reports.append(report)
    return reports


def main() -> int:
    lacking = missing()
    if lacking:
        print(lacking)
        return 1
    # A runtime would write what agents do into its log.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with ground() as made:
        reports = asyncio.run(run(made))
    out = [report for report in reports if report.fault]
    for report in out:
        print(f"  OUT {report.attempt.name}: {report.fault}")
    controls = sum(report.control is not None for report in reports)
    print(f"attempts={len(reports)} controls={controls} out={len(out)}", flush=True)
    return 1 if out else 0


if __name__ == "__main__":
    sys.exit(main())
