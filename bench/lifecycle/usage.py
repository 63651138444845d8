"""Processor time by process, read from ``/proc``: unlike a rate it hardly depends on who else is on the machine."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """Processor seconds that each named process, with all below it, has used until now.

    A child that has ended counts once its parent has waited for it.
    """
    own: dict[int, float] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # The command's name may hold spaces and brackets: fields are counted after its last bracket.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(folder.name)
        own[pid] = sum(int(ticks) for ticks in fields[11:15]) / TICKS
        children[int(fields[1])].append(pid)

    def tree(pid: int) -> float:
        return own.get(pid, 0.0) + sum(tree(child) for child in children[pid])

    return {name: tree(pid) for name, pid in pids.items()}
