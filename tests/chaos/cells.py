"""The table: which blow falls on a work item in which state, and how the item must end all the same."""

from __future__ import annotations

from dataclasses import dataclass

KILLED = ("control", "broker", "relay", "runtime-acme", "temporal")
"""Processes that are killed with -9; supervisord brings each back."""
STORMED = (*KILLED, "api", "postgres", "valkey")
"""What a storm strikes."""
STATES = {"waiting": "awaiting_approval", "queued": "queued", "running": "running"}
"""The harness's words, and the status that the API says."""


@dataclass(frozen=True, order=True)
class Cell:
    """One blow on one state.

    Attributes:
        blow: `kill <process>`, `terminate` or `reset`.
        state: One of `STATES`.
    """

    blow: str
    state: str

    @property
    def ends_as(self) -> str:
        """Killing delays; only who terminates a workflow ends its item, and that item is `halted`."""
        return "halted" if self.blow == "terminate" else "succeeded"

    def __str__(self) -> str:
        return f"{self.blow} × {self.state}"


KILLS = tuple(Cell(f"kill {process}", state) for process in KILLED for state in STATES)
ON_WORKFLOWS = tuple(Cell(blow, state) for blow in ("terminate", "reset") for state in ("waiting", "running"))
CELLS = KILLS + ON_WORKFLOWS
