"""The one private embedded stack that a test session shares, started at the first need and ended with the session."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from workers.stack import lifecycle
from workers.stack.paths import CHECKOUT
from workers.stack.stack import Stack
from workers.stack.steps import SetupError

# `AWGP_TEST_STACK=/tmp/a1 pytest tests/e2e`: uses that data folder's stack, started if it is down, and leaves it
# running. For work on these tests: a private stack takes a while to start.
KEPT = "AWGP_TEST_STACK"


def cache() -> Path:
    """Built binaries, shared by all stacks of this checkout."""
    return Path(os.environ.get("AWGP_CACHE") or CHECKOUT / ".awgp" / "cache")


class SharedStack:
    """Counts its users: two conftest files stand on one stack, and the last one to leave ends it."""

    def __init__(self) -> None:
        self._users = 0
        self._stack: Stack | None = None
        self._folder: Path | None = None

    @contextmanager
    def use(self) -> Generator[Stack]:
        """The running stack."""
        self._users += 1
        try:
            if self._stack is None:
                self._stack = self._start()
            yield self._stack
        finally:
            self._users -= 1
            if self._users == 0:
                self._end()

    def _start(self) -> Stack:
        kept = os.environ.get(KEPT)
        if kept:
            stack = Stack(Path(kept), cache=cache(), free_ports=True)
        else:
            # A short path: sockets in it have at most 107 bytes for their names.
            self._folder = Path(tempfile.mkdtemp(prefix="aw", dir="/tmp"))
            self._folder.chmod(0o755)
            stack = Stack(self._folder / "d", cache=cache(), free_ports=True)
        self._stack = stack  # Known before it is up, so that a half-started one is ended too.
        try:
            lifecycle.up(stack)
        except SetupError as error:
            if os.getuid() != 0:
                pytest.skip(f"{error.what}\n  mend it with: {error.mend}")
            raise
        return stack

    def _end(self) -> None:
        stack, self._stack = self._stack, None
        folder, self._folder = self._folder, None
        if stack is None or folder is None:
            return
        try:
            lifecycle.down(stack)
        finally:
            keep_logs(stack)
            stack.forget()
            shutil.rmtree(folder, ignore_errors=True)


def keep_logs(stack: Stack) -> None:
    """Copy the processes' logs to the folder that `AWGP_TEST_LOGS` names, for whoever looks into a failure."""
    target = os.environ.get("AWGP_TEST_LOGS")
    if target:
        shutil.copytree(stack.paths.log, Path(target) / stack.paths.tag, dirs_exist_ok=True)


SHARED = SharedStack()
