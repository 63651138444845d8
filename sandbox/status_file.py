"""How a host runtime is, in a file of its state folder: for whoever starts it and for `awgp doctor`-like eyes."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path

NAME = "status.json"


class RuntimeState(StrEnum):
    """Where a runtime process is."""

    STARTING = "starting"
    """It waits for the engine, proves the fence, enrols."""
    CONNECTING = "connecting"
    CONNECTED = "connected"
    """A broker has welcomed it: it can be given work."""
    NOT_FENCED = "not_fenced"
    NOT_ENROLLED = "not_enrolled"


class StatusFile:
    """Says how the process is; a reader compares `pid` with the process it means.

    Args:
        state_dir: The runtime's state folder.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / NAME

    def say(self, state: RuntimeState, words: str = "") -> None:
        """Replace the file whole."""
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps({"pid": os.getpid(), "state": state.value, "words": words[:1000]}))
        partial.replace(self._path)


def read_status(state_dir: Path, pid: int | None) -> tuple[RuntimeState, str]:
    """State and words of the process `pid`; `starting` when it has said nothing yet."""
    try:
        said = json.loads((state_dir / NAME).read_text())
        if said["state"] in (RuntimeState.NOT_FENCED, RuntimeState.NOT_ENROLLED) or said["pid"] == pid:
            return RuntimeState(said["state"]), str(said["words"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return RuntimeState.STARTING, ""


def forget_status(state_dir: Path) -> None:
    """Forget what the last process said, before another is started."""
    (state_dir / NAME).unlink(missing_ok=True)
