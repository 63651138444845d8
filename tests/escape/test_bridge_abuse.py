"""Abuse of the host's sockets from inside: the agent's two HTTP ports and the guest's own."""

from __future__ import annotations

import pytest

from tests.escape.bridge_attempts import ATTEMPTS as BRIDGE
from tests.escape.fence import attack
from tests.escape.ground import Ground
from tests.escape.guest_attempts import ATTEMPTS as GUEST
from tests.escape.guest_attempts import HONEST
from tests.escape.table import Report

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


@pytest.mark.parametrize("name", [attempt.name for attempt in (*BRIDGE, *GUEST)])
def test_attempt(abused: dict[str, Report], name: str) -> None:
    assert not abused[name].fault


async def test_who_says_nothing_wrong_is_heard(arena: Ground) -> None:
    """Else the others would be refused for nothing."""
    assert (await attack(arena, [HONEST]))[HONEST].state == "won"
