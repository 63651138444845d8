"""How a spec becomes a sandbox: the protocol that Docker, and for development nothing, fulfils."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sandbox.agent_forwarding import Outside
from sandbox.link.messages import RunRef, RuntimeFacts
from sandbox.run_folder import RunFolder
from sandbox.spec import Continuation, RunOutcome, RunSpec


class StartFailedError(Exception):
    """The sandbox did not start; nothing of it is left."""

    def __init__(self, outcome: RunOutcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail


class StartUnsureError(Exception):
    """Whether the sandbox started is not known, or it could not be tried. Its agent has not: that takes the job.

    Attributes:
        away: The engine does not answer; it may be tried as long as anybody cares. Else it answered with a failure
            of its own, which may be over in a moment, or last.
    """

    def __init__(self, detail: str, *, away: bool) -> None:
        super().__init__(detail)
        self.detail = detail
        self.away = away


@dataclass(frozen=True)
class Usage:
    """What the sandbox has used, as the host's cgroup counts it."""

    cpu_seconds: float | None = None
    memory_peak_bytes: int | None = None
    memory_bytes: int | None = None
    """Now, not at most."""


@dataclass(frozen=True)
class SandboxExit:
    """How a sandbox ended, as the engine says.

    Attributes:
        gone: The engine knows nothing of it any more.
    """

    exit_code: int | None
    oom_flag: bool = False
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str = ""
    gone: bool = False


@dataclass(frozen=True)
class Job:
    """One attempt to run.

    Attributes:
        lease: Answers how many seconds of its lease are left now, at least 0. The guest is told, and ends
            everything by itself when they are over: also while no runtime lives to do it.
        outside: What its agent reaches by its two ports; None: it has none.
        continuation: What an earlier attempt left for this one.
    """

    run: RunRef
    spec: RunSpec
    folder: RunFolder
    lease: Callable[[], float]
    continuation: Continuation | None = None
    outside: Outside | None = None


@dataclass(frozen=True)
class Found:
    """A sandbox of this runtime that the engine knows.

    Attributes:
        run: What it was made for; None for one that was prepared.
        prepared: Names a prepared one.
    """

    run: RunRef | None
    container_id: str
    started: bool
    prepared: str | None = None


class SandboxHandle(Protocol):
    """A sandbox that was started, by this process or by an earlier one."""

    @property
    def container_id(self) -> str:
        """The engine's id."""
        ...

    @property
    def simulated(self) -> bool:
        """True where nothing is executed: no guest will come."""
        ...

    async def wait(self) -> SandboxExit:
        """Waits for its end, however often the engine goes and comes back."""
        ...

    async def kill(self) -> None:
        """Kills it; one that has ended already is no error."""
        ...

    async def pause(self) -> bool:
        """Lets it stand still; False when it does not."""
        ...

    async def unpause(self) -> bool:
        """Lets it go on; False when it still stands."""
        ...

    async def paused(self) -> bool:
        """Whether it stands still, as the engine says; waits for an engine that is away."""
        ...

    async def usage(self) -> Usage | None:
        """Samples what it has used; None when it cannot be had now."""
        ...

    async def remove(self) -> None:
        """Removes what the engine keeps of it."""
        ...


class Runner(Protocol):
    """Starts sandboxes and finds them again."""

    async def facts(self) -> RuntimeFacts:
        """Returns what was proved about this host; raises ``ProbeFailedError`` if it may not run work."""
        ...

    async def start(self, job: Job) -> SandboxHandle:
        """Starts one, whose guest waits for its job; raises ``StartFailedError`` or ``StartUnsureError``."""
        ...

    async def clear(self, run: RunRef) -> None:
        """Ends and removes whatever was started for this run; raises ``StartUnsureError`` where it cannot know."""
        ...

    async def find(self) -> list[Found]:
        """Returns every sandbox that carries this runtime's label."""
        ...

    def attach(self, container_id: str) -> SandboxHandle:
        """Returns the handle of a found one."""
        ...


class Preparer(Protocol):
    """Starts sandboxes before it is known what will run in them."""

    async def image(self, reference: str) -> dict[str, Any]:
        """Returns what the engine knows of an image; its id is under ``Id``."""
        ...

    async def prepare(self, spec: RunSpec, folder: RunFolder, name: str) -> SandboxHandle:
        """Starts one with the image and limits of ``spec``, whose guest waits for whatever job it is given."""
        ...


class ProbeFailedError(Exception):
    """This host does not fence what it runs; ``failed`` names each check that did not hold."""

    def __init__(self, failed: dict[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {why}" for name, why in failed.items()))
        self.failed = failed
