"""The table of a stack's processes: what runs, in which order, as whom, and how it is ended."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

# What the control plane is made of beside the servers, in the order of starting.
WORKERS = ("dev_issuer", "api", "control", "broker", "relay", "upstream", "gateway")


@dataclass(frozen=True)
class Process:
    """One supervised program.

    Attributes:
        name: Its name in supervisord, in `log/` and in `status`.
        command: Program and arguments, without what ties its life to supervisord's.
        environment: Its variables; nothing is inherited but PATH, HOME and the locale.
        is_server: Started at once; the others after migrations and seeding.
        death_signal: What it gets when supervisord dies.
        stop_signal: What it gets at `make down`.
        as_server_user: Runs under PostgreSQL's user when we are root.
        order: Lower starts first and stops last.
    """

    name: str
    command: list[str]
    environment: Mapping[str, str]
    is_server: bool = False
    death_signal: str = "KILL"
    stop_signal: str = "TERM"
    as_server_user: bool = False
    order: int = 100


def worker(name: str, environment: dict[str, str], module: str | None = None, order: int = 100) -> Process:
    """A Python process of ours."""
    return Process(name, [sys.executable, "-m", f"workers.{module or name}"], environment, order=order)
