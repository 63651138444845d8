"""What a prepared sandbox was told to run, for a process that comes after this one; absent where guest.json says it."""

from __future__ import annotations

import json
from typing import Any

from sandbox.run_folder import RunFolder

_NAME = "job.json"
_COUNTED_AGAIN = ("lease_seconds", "written_at")


def write_job(folder: RunFolder, config: dict[str, object]) -> None:
    """Keeps it; the lease is said anew each time."""
    partial = folder.state / "job.partial"
    partial.write_text(json.dumps({name: value for name, value in config.items() if name not in _COUNTED_AGAIN}))
    partial.replace(folder.state / _NAME)


def read_job(folder: RunFolder) -> dict[str, Any]:
    """Returns it; empty for a sandbox that was started for its run."""
    try:
        return json.loads((folder.state / _NAME).read_bytes())
    except FileNotFoundError:
        return {}
