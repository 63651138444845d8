"""Ends what an earlier supervisord left behind, told by recorded pid and start time, never by name."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from workers.stack.paths import Paths
from workers.stack.steps import until


@dataclass(frozen=True)
class Recorded:
    """A process that we once started.

    Attributes:
        name: The program's name.
        pid: Its pid then.
        start: Its start time, in clock ticks since boot: two processes never share both.
    """

    name: str
    pid: int
    start: int

    def lives(self) -> bool:
        """Whether that very process still runs."""
        return start_time(self.pid) == self.start


def start_time(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None when there is none (or it is a zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the command in brackets and may hold anything; the rest has no brackets.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def record(paths: Paths, name: str, pid: int) -> None:
    """Record a process that we started."""
    start = start_time(pid)
    if start is not None:
        (paths.supervisor / "pids" / name).write_text(f"{pid} {start}\n")


def recorded(paths: Paths) -> list[Recorded]:
    """Every recorded process, supervisord first, so that it cannot start its children anew."""
    found: list[Recorded] = []
    for path in sorted((paths.supervisor / "pids").glob("*")):
        words = path.read_text().split()
        if len(words) == 2 and all(word.isdigit() for word in words):
            found.append(Recorded(path.name, int(words[0]), int(words[1])))
    return sorted(found, key=lambda each: each.name != "supervisord")


def end(paths: Paths, seconds: float = 15) -> list[str]:
    """End recorded processes that still live; returns their names.

    PostgreSQL is asked first (INT: fast shutdown) and killed only when it does not go.
    """
    living = [each for each in recorded(paths) if each.lives()]
    for each in living:
        _send(each, signal.SIGINT if each.name == "postgres" else signal.SIGKILL)
    for _ in until(time.monotonic() + seconds):
        if not any(each.lives() for each in living):
            break
    for each in living:
        _send(each, signal.SIGKILL)
    for path in (paths.supervisor / "pids").glob("*"):
        path.unlink(missing_ok=True)
    return [each.name for each in living]


def _send(process: Recorded, number: signal.Signals) -> None:
    if process.lives():
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return
