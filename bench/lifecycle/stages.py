"""How long each stage of a work item took, from its audit events."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from uuid import UUID

from tests.e2e.recount import Recount

STAGES = (
    ("created", "work_item.created"),
    ("assessed", "work_item.assessing"),
    ("held", "budget.reserved"),
    ("asked", "approval.opened"),
    ("approved", "approval.approved"),
    ("queued", "work_item.queued"),
    ("minted", "warrant.minted"),
    ("claimed", "work_item.running"),
    ("started", "run.started"),
    ("run ended", "run.ended"),
    ("settled", "work_item.succeeded"),
)
"""Each is the moment at which its transaction was sealed, shortly before its commit."""


def percentile(values: Collection[float], part: float) -> float:
    """The value below which a part of all lies: the nearest that was measured."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def moments(recount: Recount, items: Collection[UUID]) -> list[dict[str, datetime]]:
    """Of each item, when it reached each stage."""
    sql = """SELECT work_item_id, kind, min(occurred_at) AS at FROM audit_events
             WHERE work_item_id = ANY(%(items)s) GROUP BY 1, 2"""
    found: dict[UUID, dict[str, datetime]] = {}
    for row in recount.rows(sql, items=list(items)):
        found.setdefault(row["work_item_id"], {})[row["kind"]] = row["at"]
    return list(found.values())


def steps(items: Sequence[Mapping[str, datetime]]) -> dict[str, list[float]]:
    """Milliseconds between each two stages that an item went through, and of the whole."""
    found: dict[str, list[float]] = {}
    for reached in items:
        path = [(name, reached[kind]) for name, kind in STAGES if kind in reached]
        for (before, began), (after, ended) in pairwise(path):
            found.setdefault(f"{before} → {after}", []).append((ended - began).total_seconds() * 1000)
        found.setdefault("whole", []).append((path[-1][1] - path[0][1]).total_seconds() * 1000)
    whole = found.pop("whole", [])
    return {**found, "whole": whole}


def table(groups: Mapping[str, Sequence[Mapping[str, datetime]]]) -> list[str]:
    """Lines of a table: p50 and p99 of each step in each group."""
    measured = {name: steps(items) for name, items in groups.items()}
    names = list(dict.fromkeys(step for each in measured.values() for step in each if step != "whole"))
    lines = [f"{'ms between stages (p50 / p99)':<26}" + "".join(f"{name:>24}" for name in groups)]
    for step in (*names, "whole"):
        cells = (
            f"{statistics.median(each[step]):.0f} / {percentile(each[step], 0.99):.0f}" if each.get(step) else "-"
            for each in measured.values()
        )
        lines.append(f"  {step:<24}" + "".join(f"{cell:>24}" for cell in cells))
    return lines
