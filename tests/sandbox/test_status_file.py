"""A runtime says how it is; whoever reads means one process."""

from __future__ import annotations

import os
from pathlib import Path

from sandbox.status_file import RuntimeState, StatusFile, forget_status, read_status


def test_what_was_said_is_read_by_the_pid_that_said_it(tmp_path: Path) -> None:
    StatusFile(tmp_path).say(RuntimeState.CONNECTED)
    assert read_status(tmp_path, os.getpid()) == (RuntimeState.CONNECTED, "")
    assert read_status(tmp_path, os.getpid() + 1) == (RuntimeState.STARTING, "")


def test_a_refusal_outlives_its_process(tmp_path: Path) -> None:
    StatusFile(tmp_path).say(RuntimeState.NOT_FENCED, "no gVisor")
    assert read_status(tmp_path, None) == (RuntimeState.NOT_FENCED, "no gVisor")
    forget_status(tmp_path)
    assert read_status(tmp_path, None) == (RuntimeState.STARTING, "")


def test_what_cannot_be_read_is_starting(tmp_path: Path) -> None:
    for text in ("", "{", "[]", '{"pid": 1}', '{"pid": 1, "state": "odd", "words": ""}'):
        (tmp_path / "status.json").write_text(text)
        assert read_status(tmp_path, 1) == (RuntimeState.STARTING, "")
