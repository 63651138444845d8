"""Processes of our own engine that it may have forgotten: containerd's shims and gVisor's sandboxes.

An engine that was killed in the middle of a start loses sight of what it started; nobody else would end it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from workers.stack.docker_engine import DockerEngine
from workers.stack.leftovers import Recorded, start_time
from workers.stack.steps import until

PATIENCE_SECONDS = 10


def shims(engine: DockerEngine) -> list[Recorded]:
    """Containerd's shims, told by the address of our own containerd among their words."""
    address = os.fsencode(engine.containerd_socket)
    return [found for found, words in _processes() if address in words and b"shim" in words[0]]


def sandboxes(engine: DockerEngine) -> list[Recorded]:
    """GVisor's processes, told by a state folder below our engine's own."""
    root = b"--root=" + os.fsencode(engine.exec_root) + b"/"
    return [found for found, words in _processes() if any(word.startswith(root) for word in words)]


def end(engine: DockerEngine) -> int:
    """Kill what is left of both; the engine itself must have ended. Answers how many there were."""
    living = [*shims(engine), *sandboxes(engine)]
    for each in living:
        if each.lives():
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
    for _ in until(time.monotonic() + PATIENCE_SECONDS):
        if not any(each.lives() for each in living):
            break
    return len(living)


def _processes() -> Iterator[tuple[Recorded, list[bytes]]]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        pid = int(path.parent.name)
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        started = start_time(pid)
        if started is not None and words[0]:
            yield Recorded(os.fsdecode(words[0]), pid, started), words
