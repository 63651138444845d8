"""Exhaustion, traps and lies: a sandbox each, and a good run right after each. AWGP_ESCAPE=all: every one."""

from __future__ import annotations

import os

import pytest

from tests.escape import alone
from tests.escape.alone_attempts import ATTEMPTS, REPRESENTATIVE
from tests.escape.ground import Ground

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


_CHOSEN = [
    lone for lone in ATTEMPTS if lone.attempt.name in REPRESENTATIVE or os.environ.get("AWGP_ESCAPE") == "all"
]


@pytest.mark.parametrize("lone", _CHOSEN, ids=lambda lone: lone.attempt.name)
async def test_attempt(arena: Ground, lone: alone.Lone) -> None:
    report = await alone.report(arena, lone)
    assert not report.fault
