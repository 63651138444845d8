"""The ground of the suite, and the verdicts on all attacks on the fence, once a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.escape import bridge_attempts, fence, fence_attempts, guest_attempts
from tests.escape.ground import Ground, ground
from tests.escape.table import Attempt, Report
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
    return _reports(arena, fence_attempts.ATTEMPTS)


@pytest.fixture(scope="session")
def abused(arena: Ground) -> dict[str, Report]:
    """Likewise, those on the host's sockets."""
    return _reports(arena, bridge_attempts.ATTEMPTS) | _reports(arena, guest_attempts.ATTEMPTS)


def _reports(arena: Ground, attempts: list[Attempt]) -> dict[str, Report]:
    return {report.attempt.name: report for report in asyncio.run(fence.reports(arena, attempts))}
