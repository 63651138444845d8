"""Whole L0 work items a second, beside bare Temporal workflows with as many activities on the same server.

``python -m bench.lifecycle``: an embedded stack of its own (all of it real but the sandboxes, which a null runner
stands for), alternated rounds, then where a work item's time goes. `bench/README.md` says how to read it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from uuid import UUID

from api.schemas.work_items import WorkItemAnswer
from bench.lifecycle import bare_worker, histories, meter, stages
from bench.lifecycle.histories import Events
from bench.lifecycle.meter import Cost, Meter
from bench.lifecycle.paths import Paths, latency, throughput
from bench.lifecycle.private_stack import private_stack
from bench.lifecycle.stages import percentile
from tests.e2e.client import Console
from tests.e2e.recount import Recount, expect_well
from workers.stack.stack import Stack
from workflows.client import connect
from workflows.names import approval_workflow_id, work_item_workflow_id

QUIET_SECONDS = 4
WARM_UP = 8
HISTORIES = 100
"""Read of the many that were under way together."""


@dataclass
class Measured:
    """Everything that the rounds gave.

    Attributes:
        rates: A second, ours and bare, by round.
        alone: Ids of the work items that had the machine for themselves.
        crowd: Ids of those that were under way together.
        waits: Milliseconds from a decision's answer to `place_run` started.
    """

    rates: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    latencies: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    ours: Cost = field(default_factory=Cost)
    floor: Cost = field(default_factory=Cost)
    idle: Cost = field(default_factory=Cost)
    crowd: list[UUID] = field(default_factory=list[UUID])
    alone: list[UUID] = field(default_factory=list[UUID])
    approved: list[tuple[WorkItemAnswer, UUID, datetime]] = field(
        default_factory=list[tuple[WorkItemAnswer, UUID, datetime]]
    )


async def one_round(number: int, paths: Paths, gauge: Meter, measured: Measured, options: argparse.Namespace) -> None:
    """Both paths with many at once, then both alone, then approvals; the order changes with the round."""
    crowds = [
        (paths.ours, measured.ours),
        (paths.floor, measured.floor),
    ]
    rates: dict[int, float] = {}
    for which in (0, 1) if number % 2 else (1, 0):
        one, cost = crowds[which]
        seen = len(paths.items)
        rates[which] = await gauge.phase(cost, options.each, partial(throughput, one, options.each, options.at_once))
        measured.crowd += paths.items[seen:]
    measured.rates.append((rates[0], rates[1]))
    seen = len(paths.items)
    for _ in range(options.alone):
        for (one, _cost), times in zip(crowds, measured.latencies, strict=True):
            times.append(await latency(one))
    measured.alone += paths.items[seen:]
    for _ in range(options.approvals):
        measured.approved.append(await paths.approved())
    print(f"{number:>5} {rates[0]:>14.1f} {rates[1]:>9.1f} {rates[0] / rates[1]:>8.2f}", flush=True)


def say_rates(measured: Measured, options: argparse.Namespace) -> None:
    """Prints rates, their ratio with its spread, and latencies."""
    ours, floor = (statistics.median(column) for column in zip(*measured.rates, strict=True))
    ratios = sorted(line[0] / line[1] for line in measured.rates)
    print(
        f"\nmedians: {ours:.1f} work items/s, {floor:.1f} bare workflows/s; work item / bare: "
        f"{statistics.median(ratios):.2f} (spread {ratios[0]:.2f}–{ratios[-1]:.2f}); no goal is set yet"
    )
    print(f"{options.rounds} rounds of {options.each}, {options.at_once} at once\n")
    for name, times in zip(("work item", "bare workflow"), measured.latencies, strict=True):
        print(f"one {name} alone: p50 {statistics.median(times):.0f} ms, p99 {percentile(times, 0.99):.0f} ms")


def say_waits(measured: Measured, approved: Sequence[Events]) -> None:
    """Prints how soon after a decision a broker had the run."""
    waits = [
        (histories.started_at(history, "place_run") - answered).total_seconds() * 1000
        for history, (_, _, answered) in zip(approved, measured.approved, strict=True)
    ]
    if waits:
        print(
            f"decision answered → place_run started: p50 {statistics.median(waits):.0f} ms, "
            f"p99 {percentile(waits, 0.99):.0f} ms ({len(waits)} of L3, each alone)"
        )


async def say_histories(paths: Paths, measured: Measured, tenant_id: UUID) -> None:
    """Prints the events of each path, and the workflow tasks that were done in vain."""
    client = paths.client
    of_items = [await histories.events(client, work_item_workflow_id(tenant_id, each)) for each in measured.alone]
    approved = [
        await histories.events(client, work_item_workflow_id(tenant_id, item.id)) for item, _, _ in measured.approved
    ]
    asked = [await histories.events(client, approval_workflow_id(each)) for _, each, _ in measured.approved]
    floor = [await histories.events(client, name) for name in paths.workflows[-len(of_items) :]]
    say_waits(measured, approved)
    crowd = [
        await histories.events(client, work_item_workflow_id(tenant_id, each)) for each in measured.crowd[-HISTORIES:]
    ]
    groups = {"L0": of_items, "L0 in a crowd": crowd, "L3": approved, "its approval": asked, "bare": floor}
    print("\n" + "\n".join(histories.table({name: group for name, group in groups.items() if group})))
    for name, group in groups.items():
        for cause, number in histories.failed_tasks(group).items():
            print(f"  workflow tasks of {name} that failed: {number} of {len(group)} histories, by {cause}")
        for activity, number in histories.fallen_back(group).items():
            print(f"  local activities of {name} that were too slow: {number} of {len(group)}, {activity}")


async def measure(stack: Stack, options: argparse.Namespace) -> None:
    """Runs the rounds and prints what they gave."""
    address = f"127.0.0.1:{stack.ports.temporal}"
    client = await connect(address, bare_worker.NAMESPACE)
    measured = Measured()
    async with Console(stack) as console:
        paths = Paths(client, console.user("alice"), console.user("anton"))
        with ExitStack() as ends:
            recount = ends.enter_context(Recount.of(stack))
            bare_pids = ends.enter_context(bare_worker.processes(address))
            pids = {name: state.pid for name, state in stack.supervision.states().items() if state.pid}
            gauge = Meter({**pids, **{f"bare {role}": pid for role, pid in bare_pids.items()}}, recount)
            for one in (paths.ours, paths.floor):
                await throughput(one, WARM_UP, WARM_UP)  # Warms caches; not counted.
            tenant_id = (await paths.approved())[0].tenant_id
            await gauge.phase(measured.idle, 1, partial(asyncio.sleep, QUIET_SECONDS))
            print(f"{'round':>5} {'work items/s':>14} {'bare/s':>9} {'ratio':>8}", flush=True)
            for number in range(1, options.rounds + 1):
                await one_round(number, paths, gauge, measured, options)
            say_rates(measured, options)
            await say_histories(paths, measured, tenant_id)
            groups = {
                "L0 alone": measured.alone,
                f"L0, {options.at_once} at once": measured.crowd,
                "L3 alone": [item.id for item, _, _ in measured.approved],
            }
            found = {name: stages.moments(recount, items) for name, items in groups.items() if items}
            print("\n" + "\n".join(stages.table(found)))
            print("\n" + "\n".join(meter.table(measured.ours, measured.floor, measured.idle)))
            expect_well(recount, paths.items)
    print(f"\nrecounted: {len(paths.items)} work items, each ended once, books and audit trails whole")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def main() -> None:
    """Reads the options."""
    parser = argparse.ArgumentParser(prog="python -m bench.lifecycle", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--each", type=int, default=40, help="done in each phase of a round")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--alone", type=int, default=8, help="done one after another, each round")
    parser.add_argument("--approvals", type=int, default=4, help="approved one after another, each round")
    parser.add_argument("--stack", type=Path, help="use, and leave running, the stack of this data folder")
    options = parser.parse_args()
    # Told to end, it ends its stack too.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM))
    with private_stack(options.stack) as stack:
        asyncio.run(measure(stack, options))


if __name__ == "__main__":
    main()
