"""The ground of the suite, and the verdicts on all attacks on the fence, once a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.escape import fence, fence_attempts
from tests.escape.ground import Ground, ground
from tests.escape.table import Report
from tests.sandbox.private_engine import missing


@pytest.fixture(scope="session")
def arena() -> Iterator[Ground]:
    lacking = missing()
    if lacking:
        pytest.fail(lacking)
    with ground() as made:
        yield made


@pytest.fixture(scope="session")
def fenced(arena: Ground) -> dict[str, Report]:
    """Carried out together: a sandbox for all attacks, and one for each set of controls."""
    found = asyncio.run(fence.reports(arena, fence_attempts.ATTEMPTS))
    return {report.attempt.name: report for report in found}
