"""Measures phases: rate, processor time of every process, transactions; what idling costs is taken off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from bench.lifecycle import usage
from tests.e2e.recount import Recount

CLIENTS = "clients (this bench)"
STATISTICS_LAG_SECONDS = 1.2
"""PostgreSQL's backends report their counts at most once a second."""
COMMITS = "SELECT xact_commit::bigint FROM pg_stat_database WHERE datname = 'awgp'"


@dataclass
class Cost:
    """What phases of one kind have used together.

    Attributes:
        seconds: Their length.
        done: How many were done in them.
        processor: Processor seconds by process.
        commits: Committed transactions.
    """

    seconds: float = 0.0
    done: int = 0
    processor: dict[str, float] = field(default_factory=dict[str, float])
    commits: float = 0.0

    def each(self, idle: Cost) -> dict[str, float]:
        """Milliseconds of processor time for each one done, by process."""
        return {
            name: max(0.0, used - idle.processor[name] / idle.seconds * self.seconds) / self.done * 1000
            for name, used in self.processor.items()
        }

    def commits_each(self, idle: Cost) -> float:
        """Transactions for each one done."""
        return max(0.0, self.commits - idle.commits / idle.seconds * self.seconds) / self.done


class Meter:
    """Reads the counters before and after a phase.

    Args:
        pids: Processes by name.
        recount: A connection of its own, for PostgreSQL's counter.
    """

    def __init__(self, pids: Mapping[str, int], recount: Recount) -> None:
        self._pids = pids
        self._recount = recount

    def _read(self) -> tuple[dict[str, float], float]:
        processor = {**usage.seconds(self._pids), CLIENTS: time.process_time()}
        return processor, float(self._recount.value(COMMITS))

    async def phase(self, cost: Cost, done: int, work: Callable[[], Awaitable[object]]) -> float:
        """Do `work`, add what it used to `cost`, and answer how many a second were done."""
        await asyncio.sleep(STATISTICS_LAG_SECONDS)
        before, commits = self._read()
        began = time.perf_counter()
        await work()
        seconds = time.perf_counter() - began
        await asyncio.sleep(STATISTICS_LAG_SECONDS)
        after, commits_after = self._read()
        cost.seconds += seconds + STATISTICS_LAG_SECONDS
        cost.done += done
        cost.commits += commits_after - commits
        for name, value in after.items():
            cost.processor[name] = cost.processor.get(name, 0.0) + value - before[name]
        return done / seconds


def table(ours: Cost, floor: Cost, idle: Cost) -> list[str]:
    """Lines of a table: processor milliseconds for each work item and each bare workflow."""
    columns = ours.each(idle), floor.each(idle)
    lines = [f"{'ms of processor time for each':<32}{'work item':>12}{'bare':>8}{'idle, ms/s':>12}"]
    for name in sorted(columns[0], key=lambda each: -columns[0][each] - columns[1][each]):
        rest = idle.processor[name] / idle.seconds * 1000
        lines.append(f"  {name:<30}{columns[0][name]:>12.1f}{columns[1][name]:>8.1f}{rest:>12.1f}")
    lines.append(f"  {'all':<30}{sum(columns[0].values()):>12.1f}{sum(columns[1].values()):>8.1f}")
    lines.append(f"  {'PostgreSQL transactions':<30}{ours.commits_each(idle):>12.1f}{floor.commits_each(idle):>8.1f}")
    return lines
