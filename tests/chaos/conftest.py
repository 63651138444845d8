from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.private_stack import SHARED
from workers.stack.stack import Stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The end-to-end tests' stack, when the session has both."""
    with SHARED.use() as running:
        yield running
