from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.e2e.client import Console, User
from tests.e2e.cut_off import CutOff, cut_off_runtime
from tests.e2e.private_stack import SHARED
from tests.e2e.recount import Recount
from tests.e2e.temporal_cli import TemporalCli
from workers.stack.stack import Stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The whole control plane, really running, shared by the session's tests."""
    with SHARED.use() as running:
        yield running


@pytest.fixture
async def console(stack: Stack) -> AsyncIterator[Console]:
    async with Console(stack) as opened:
        yield opened


@pytest.fixture
def recount(stack: Stack) -> Iterator[Recount]:
    with Recount.of(stack) as opened:
        yield opened


@pytest.fixture
def temporal(stack: Stack) -> TemporalCli:
    return TemporalCli(stack)


@pytest.fixture
def alice(console: Console) -> User:
    """Asks for work at Acme, and owns assistants there."""
    return console.user("alice")


@pytest.fixture
def anton(console: Console) -> User:
    """Approves at Acme."""
    return console.user("anton")


@pytest.fixture
def armin(console: Console) -> User:
    """Administers Acme."""
    return console.user("armin")


@pytest.fixture
def gina(console: Console) -> User:
    """Asks for work at Globex, and owns assistants there."""
    return console.user("gina")


@pytest.fixture
def gregor(console: Console) -> User:
    """Administers Globex."""
    return console.user("gregor")


@pytest.fixture
def helen(console: Console) -> User:
    """Approves for the holding."""
    return console.user("helen")


@pytest.fixture(scope="session")
def cut_off(stack: Stack) -> Iterator[CutOff]:
    """The holding's runtime, frozen with two runs in its sandboxes until a test lets it go on."""
    with cut_off_runtime(stack) as frozen:
        yield frozen
