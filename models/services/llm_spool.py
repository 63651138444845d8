"""Charges that Redis did not take at once, on this machine's disk until it does.

A file belongs to the process that holds its lock; what a dead process has left, any other brings in. A line is there
when `add` has returned, and a half-written one was never promised to anybody.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog

log = structlog.get_logger("llm_spool")

Line = dict[str, Any]


class LlmSpool:
    """A folder of such files.

    Args:
        folder: Made when it is needed; private.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: int | None = None
        self._path: Path | None = None
        self._one_at_a_time = asyncio.Lock()

    async def add(self, line: Line) -> None:
        """Keep a line: on the disk when this returns."""
        async with self._one_at_a_time:
            await asyncio.to_thread(self._append, (json.dumps(line, separators=(",", ":")) + "\n").encode())

    async def bring_in(self, take: Callable[[Line], Awaitable[None]]) -> int:
        """Hand each kept line to `take`; a file whose lines were all taken is gone. Answers how many were.

        A line may be handed over twice, so `take` is idempotent. When it raises, the file stays as it is.
        """
        if not self._folder.is_dir():
            return 0
        async with self._one_at_a_time:
            self._let_go()
        taken = 0
        for path in sorted(self._folder.glob("*.jsonl")):
            file = await asyncio.to_thread(_lock, path)
            if file is None:
                continue
            try:
                for line in await asyncio.to_thread(_lines, path):
                    await take(line)
                    taken += 1
                path.unlink(missing_ok=True)
            finally:
                os.close(file)
        return taken

    def close(self) -> None:
        """Let go of the current file, so that others may bring it in."""
        self._let_go()

    def _append(self, data: bytes) -> None:
        if self._file is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path = self._folder / f"{uuid4()}.jsonl"
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        os.write(self._file, data)
        os.fsync(self._file)

    def _let_go(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _lock(path: Path) -> int | None:
    """The file's lock, unless its writer lives or it is gone."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file


def _lines(path: Path) -> list[Line]:
    found: list[Line] = []
    for raw in path.read_bytes().splitlines():
        try:
            found.append(json.loads(raw))
        except ValueError:
            log.warning("half_a_line", file=path.name)
    return found
