"""An embedded stack for the length of the bench: everything real but the sandboxes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from workers.stack import lifecycle
from workers.stack.paths import CHECKOUT
from workers.stack.stack import Stack

PLACES = 64
"""Sandboxes at once, more than the bench has clients: places are not what is measured."""
SETTINGS = {
    "AWGP_ALLOW_NULL_RUNNER": "true",
    "AWGP_RUNTIME_NULL_RUNNER": "true",
    "AWGP_RUNTIME_CAPACITY": str(PLACES),
}


@contextmanager
def private_stack(kept: Path | None) -> Generator[Stack]:
    """Bring a stack up, and end it whatever happens.

    Args:
        kept: Use (and leave running) the stack of this data folder, for work on the bench itself.
    """
    data = Path(os.environ.get("AWGP_DATA") or CHECKOUT / ".awgp")
    cache = Path(os.environ.get("AWGP_CACHE") or data / "cache")
    if kept is not None:
        stack = Stack(kept, cache=cache, free_ports=True, settings=SETTINGS)
        lifecycle.up(stack)
        yield stack
        return
    # A short path: sockets in it have at most 107 bytes for their names.
    folder = Path(tempfile.mkdtemp(prefix="aw", dir="/tmp"))
    folder.chmod(0o755)
    stack = Stack(folder / "d", cache=cache, free_ports=True, settings=SETTINGS)
    try:
        lifecycle.up(stack)
        yield stack
    finally:
        try:
            lifecycle.down(stack)
        finally:
            stack.forget()
            shutil.rmtree(folder, ignore_errors=True)
