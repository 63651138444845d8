"""Cleans up after a start that failed.

Docker says *removed*, and containerd keeps a task, a shim, a bundle and cgroups for ever.

Seen with old and new gVisor; a missing command is enough. The cure waits until containerd has settled
and deletes the task without force, then its container. An engine that was killed between start and writing it down
leaves a task that runs: it is killed first; one whose containerd died as well leaves processes that nobody knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path

import structlog

from sandbox.engine import ENGINE_ERRORS, Engine

log = structlog.get_logger(__name__)

_SETTLE_SECONDS = 4.0
_DYING_SECONDS = 1.0
_CTR_SECONDS = 20.0


class FailedStarts:
    """Removes what a failed start leaves.

    Args:
        engine: Where it failed.
        containerd: Socket of that engine's containerd; None when it is not known: then what leaks is
            only said.
    """

    def __init__(self, engine: Engine, containerd: str | None) -> None:
        self._engine = engine
        self._containerd = containerd
        self._cures: set[asyncio.Task[None]] = set()

    async def clean(self, container_id: str) -> None:
        """Removes the container at once, and in the background what containerd keeps."""
        with contextlib.suppress(*ENGINE_ERRORS, TimeoutError):
            await self._engine.call(lambda client: client.api.remove_container(container_id, force=True, v=True))
        self.cure(container_id)

    def cure(self, container_id: str) -> None:
        """Ends in the background what containerd keeps of a container that has ended."""
        if self._containerd is None or shutil.which("ctr") is None:
            log.warning("a_shim_may_leak", container=container_id)
            return
        cure = asyncio.create_task(self._cure(container_id, self._containerd))
        self._cures.add(cure)
        cure.add_done_callback(self._cures.discard)

    async def _cure(self, container_id: str, containerd: str) -> None:
        await asyncio.sleep(_SETTLE_SECONDS)
        if await _ctr(containerd, "task", "kill", "--signal", "SIGKILL", container_id):
            await asyncio.sleep(_DYING_SECONDS)
        # Without -f: forced, it gives up on the shim and leaves it.
        await _ctr(containerd, "task", "delete", container_id)
        await _ctr(containerd, "container", "rm", container_id)
        await asyncio.to_thread(_end_forgotten, container_id)

    async def settled(self) -> None:
        """Waits until nothing is being cleaned."""
        await asyncio.gather(*self._cures, return_exceptions=True)


def _end_forgotten(container_id: str) -> None:
    """Ends the shim and the sandbox that a killed containerd has forgotten; its id, in their words, is theirs alone."""
    word = container_id.encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            ours = Path(os.fsdecode(words[0])).name.startswith(("containerd-shim", "runsc"))
            if ours and any(word in each for each in words[1:]):
                os.kill(int(path.parent.name), signal.SIGKILL)


async def _ctr(containerd: str, *arguments: str) -> bool:
    """Whether it did what it was asked."""
    process = await asyncio.create_subprocess_exec(
        "ctr", "-a", containerd, "-n", "moby", *arguments,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_CTR_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
    return process.returncode == 0
