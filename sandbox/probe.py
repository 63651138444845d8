"""Proves at a runtime's start that this host really fences what it runs.

A flag that the engine ignores in silence looks exactly like one that works: so each promise is tried
from the inside, through the very path that runs take. Reads nothing of what is configured.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from sandbox.engine import ENGINE_ERRORS, Engine, explain
from sandbox.execution import Execution
from sandbox.link.messages import RunRef, RuntimeFacts
from sandbox.run_folder import RunFolder
from sandbox.runner import Job, ProbeFailedError, Runner
from sandbox.spec import MIB, Limits, RunOutcome, RunResult, RunSpec

RUNTIME_VERSION = "1"

_INSIDE = (Path(__file__).parent / "probe_inside.py").read_text()
_KILLED = 137
_FENCE = Limits(memory_bytes=512 * MIB, nproc=32, disk_bytes=2 * MIB, tmp_bytes=MIB, nofile=128, wall_seconds=60)
_MEMORY = Limits(memory_bytes=96 * MIB, wall_seconds=60)
_LEASE_SECONDS = 120.0
"""A probe of a killed runtime ends by itself."""
_EAT_MEMORY = "b=[]\nwhile True: b.append(bytearray(b'x') * (8 << 20))"


@dataclass(frozen=True)
class ProbeSettings:
    """Where and with what to probe.

    Attributes:
        image: One with python3 in it.
        state_dir: For the probe's own run folders.
        run_dir: Whose subfolders are bind-mounted.
    """

    image: str
    docker_runtime: str
    state_dir: Path
    run_dir: Path


class Probe:
    """The two probe containers and what they prove."""

    def __init__(self, engine: Engine, settings: ProbeSettings) -> None:
        self._engine = engine
        self._settings = settings

    async def prove(self, runner: Runner) -> RuntimeFacts:
        """Returns the facts when every check held; raises ``ProbeFailedError`` naming those that did not."""
        await asyncio.to_thread(self._sweep)
        fence, memory = await asyncio.gather(
            self._run(runner, _FENCE, _INSIDE), self._run(runner, _MEMORY, _EAT_MEMORY)
        )
        result, output = fence
        checks = _read(output)
        if result.outcome is not RunOutcome.SUCCEEDED or checks is None:
            reason = f"{result.outcome}: {result.detail} {output[-500:].decode(errors='replace')}"
            raise ProbeFailedError({"probe container": reason.strip()})
        # The eater never kills itself: killed at all, whichever process the kernel picked, it met the limit.
        # (One that we killed at its wall time has met none.)
        by_itself = memory[0].outcome is RunOutcome.FAILED_EXIT and memory[0].exit_code == _KILLED
        held = memory[0].outcome is RunOutcome.OUT_OF_MEMORY or by_itself
        checks["memory limit"] = "" if held else memory[0].detail
        failed = {name: why for name, why in checks.items() if why}
        if failed:
            raise ProbeFailedError(failed)
        return await self._facts(tuple(sorted(checks)))

    def _sweep(self) -> None:
        """Removes what probes of killed processes left; their containers fall to the reaper."""
        for parent in (self._settings.state_dir, self._settings.run_dir):
            for left in parent.glob("probe-*"):
                shutil.rmtree(left, ignore_errors=True)

    async def _run(self, runner: Runner, limits: Limits, script: str) -> tuple[RunResult, bytes]:
        run = RunRef(run_id=uuid4(), attempt=1)
        await asyncio.to_thread(self._settings.state_dir.mkdir, parents=True, exist_ok=True)
        state = Path(tempfile.mkdtemp(prefix="probe-", dir=self._settings.state_dir))
        folder = RunFolder(state, self._settings.run_dir / f"probe-{run.run_id}")
        folder.make()
        spec = RunSpec(
            run_id=run.run_id,
            work_item_id=run.run_id,
            tenant_id=run.run_id,
            assistant_id=run.run_id,
            image=self._settings.image,
            entrypoint=("python3", "-c", script),
            limits=limits,
        )
        container: list[str] = []

        async def remember(container_id: str, _: object) -> None:
            container.append(container_id)

        execution = Execution(runner, Job(run, spec, folder, lambda: _LEASE_SECONDS), remember)
        try:
            result = await execution.run()
            output = b"".join(record.data for record in execution.bridge.spool.read(0, MIB))
            return result, output
        finally:
            for container_id in container:
                await runner.attach(container_id).kill()
                await runner.attach(container_id).remove()
            execution.bridge.spool.close()
            await asyncio.to_thread(folder.remove)

    async def _facts(self, checks: tuple[str, ...]) -> RuntimeFacts:
        info: dict[str, Any] = await self._engine.call(lambda client: client.info())
        runtimes: dict[str, Any] = info.get("Runtimes") or {}
        configured: dict[str, Any] = runtimes.get(self._settings.docker_runtime) or {}
        arguments: list[str] = configured.get("runtimeArgs") or []
        named = [text.partition("=")[2] for text in arguments if text.startswith("--platform=")]
        return RuntimeFacts(
            runtime_version=RUNTIME_VERSION,
            gvisor_version=await _version(configured.get("path", "")),
            platform=named[-1] if named else "systrap",
            docker_version=info.get("ServerVersion"),
            kernel=info.get("KernelVersion"),
            architecture=info.get("Architecture") or platform.machine(),
            cpus=info.get("NCPU") or 0,
            checks=checks,
        )


def _read(output: bytes) -> dict[str, str] | None:
    """Reads the probe's answer: each check with an empty text where it held."""
    for line in output.splitlines():
        with contextlib.suppress(ValueError, AttributeError):
            return {str(name): str(why) for name, why in json.loads(line).items()}
    return None


async def _version(path: str) -> str | None:
    """Asks the configured gVisor binary; None where it is not on this machine."""
    if not path or shutil.which(path) is None:
        return None
    process = await asyncio.create_subprocess_exec(
        path, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    words = output.decode(errors="replace").split()
    return words[2] if len(words) > 2 else None


async def wait_for_engine(engine: Engine, say: Any) -> None:
    """Waits until the engine answers, however long, and says what it waits for."""
    pause = 0.2
    while True:
        try:
            await engine.call(lambda client: client.ping(), 10)
            return
        except (*ENGINE_ERRORS, TimeoutError) as error:
            say("waiting_for_docker", error=explain(error))
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)
