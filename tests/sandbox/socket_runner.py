"""A runner without Docker whose sandbox is a coroutine that speaks the guest's protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from sandbox.link.messages import RunRef, RuntimeFacts
from sandbox.runner import Found, Job, SandboxExit, SandboxHandle, Usage
from tests.sandbox.guest_double import GuestDouble, output

Agent = Callable[["SocketSandbox"], Awaitable[int]]


class SocketSandbox:
    """A sandbox that outlives the runtime, as a container does."""

    simulated = False

    def __init__(self, job: Job, agent: Agent) -> None:
        self.job = job
        self.container_id = f"socket-{job.run.run_id}-{job.run.attempt}"
        self.started_at = datetime.now(UTC)
        self.killed = False
        self.still = False
        self.guests: list[GuestDouble] = []
        self._task = asyncio.create_task(self._live(agent))
        self._exit: asyncio.Future[SandboxExit] = asyncio.get_running_loop().create_future()

    async def _live(self, agent: Agent) -> None:
        try:
            code = await agent(self)
        except asyncio.CancelledError:
            code = 137
        for guest in self.guests:
            await guest.close()
        self._exit.set_result(SandboxExit(code, started_at=self.started_at, ended_at=datetime.now(UTC)))

    async def connect(self) -> GuestDouble:
        while True:
            try:
                guest = await GuestDouble.connect(self.job.folder.bridge / "guest.sock")
                self.guests.append(guest)
                return guest
            except (OSError, AssertionError):
                await asyncio.sleep(0.02)

    async def wait(self) -> SandboxExit:
        return await asyncio.shield(self._exit)

    async def kill(self) -> None:
        self.killed = True
        self._task.cancel()

    async def pause(self) -> bool:
        self.still = True
        return True

    async def unpause(self) -> bool:
        self.still = False
        return True

    async def paused(self) -> bool:
        return self.still

    async def usage(self) -> Usage | None:
        return Usage(cpu_seconds=0.5, memory_peak_bytes=1000)

    async def remove(self) -> None:
        await self.kill()


class SocketRunner:
    """Keeps its sandboxes, so that a later runtime can find them."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.sandboxes: dict[str, SocketSandbox] = {}
        self.starts: list[RunRef] = []

    async def facts(self) -> RuntimeFacts:
        return RuntimeFacts(runtime_version="test", null_runner=True)

    async def start(self, job: Job) -> SandboxHandle:
        sandbox = SocketSandbox(job, self.agent)
        self.sandboxes[sandbox.container_id] = sandbox
        self.starts.append(job.run)
        return sandbox

    async def clear(self, run: RunRef) -> None: ...

    async def find(self) -> list[Found]:
        return [Found(s.job.run, name, started=True) for name, s in self.sandboxes.items()]

    def attach(self, container_id: str) -> SandboxHandle:
        return self.sandboxes[container_id]


async def say_and_leave(sandbox: SocketSandbox) -> int:
    """An agent that writes, leaves one artifact and ends with 0."""
    guest = await sandbox.connect()
    guest.writer.write(output(0, b"hello\n"))
    guest.exited(0, 6)
    guest.artifact("result.json", b"{}")
    guest.all_sent(1)
    await guest.expect(b"F")
    return 0


async def sleep_for_ever(sandbox: SocketSandbox) -> int:
    """An agent that says one line and stays."""
    guest = await sandbox.connect()
    guest.writer.write(output(0, b"here\n"))
    await asyncio.Event().wait()
    return 0
