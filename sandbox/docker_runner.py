"""Sandboxes as Docker containers under gVisor."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import datetime
from typing import Any

import structlog
from docker.errors import APIError, ImageNotFound, NotFound

from sandbox.container_arguments import (
    LABEL_ATTEMPT,
    LABEL_OWNER,
    LABEL_RUN,
    Host,
    container_arguments,
    guest_config,
)
from sandbox.engine import ENGINE_ERRORS, Engine, explain
from sandbox.failed_start import FailedStarts
from sandbox.image_command import ImageCommand, resolve_command
from sandbox.link.messages import RunRef, RuntimeFacts
from sandbox.probe import Probe
from sandbox.runner import Found, Job, SandboxExit, SandboxHandle, StartFailedError, Usage
from sandbox.spec import RunOutcome

log = structlog.get_logger(__name__)

_WAIT_SECONDS = 30.0


class DockerHandle:
    """One container."""

    simulated = False

    def __init__(self, engine: Engine, container_id: str) -> None:
        self._engine = engine
        self.container_id = container_id

    async def wait(self) -> SandboxExit:
        """Waits for its end, however often the engine goes and comes back."""
        while True:
            await self._engine.wait(self.container_id, _WAIT_SECONDS)
            try:
                state = await self._inspect()
            except NotFound:
                return SandboxExit(exit_code=None, gone=True)
            except (*ENGINE_ERRORS, TimeoutError):
                await asyncio.sleep(0.5)
                continue
            if not state["Running"]:
                return _exit_of(state)

    async def _inspect(self) -> dict[str, Any]:
        answer = await self._engine.call(lambda client: client.api.inspect_container(self.container_id))
        return answer["State"]

    async def kill(self) -> None:
        """Kills it; tries until the engine is there to do it."""
        while True:
            try:
                await self._engine.call(lambda client: client.api.kill(self.container_id, "KILL"))
                return
            except NotFound:
                return
            except APIError as error:
                if error.status_code == 409:  # It is not running.
                    return
                log.warning("kill_failed", container=self.container_id, error=explain(error))
            except (*ENGINE_ERRORS, TimeoutError) as error:
                log.warning("kill_failed", container=self.container_id, error=explain(error))
            await asyncio.sleep(0.5)

    async def usage(self) -> Usage | None:
        """Samples Docker's view of the cgroup: the guest's own view of CPU time is wrong."""
        try:
            stats: dict[str, Any] = await self._engine.call(
                lambda client: client.api.stats(self.container_id, stream=False, one_shot=True), 10
            )
        except (*ENGINE_ERRORS, TimeoutError):
            return None
        memory: dict[str, Any] = stats.get("memory_stats") or {}
        cpu: dict[str, Any] = stats.get("cpu_stats") or {}
        total: int | None = cpu.get("cpu_usage", {}).get("total_usage")
        if not memory.get("usage") and not total:
            return None
        return Usage(
            cpu_seconds=total / 1e9 if total else None,
            memory_peak_bytes=memory.get("max_usage") or memory.get("usage"),
            memory_bytes=memory.get("usage"),
        )

    async def remove(self) -> None:
        """Removes it; what cannot be removed now is left to the reaper."""
        with contextlib.suppress(*ENGINE_ERRORS, TimeoutError):
            await self._engine.call(lambda client: client.api.remove_container(self.container_id, force=True, v=True))


class DockerRunner:
    """Starts containers and finds them again by label."""

    def __init__(self, engine: Engine, host: Host, failed: FailedStarts, probe: Probe) -> None:
        self.engine = engine
        self._host = host
        self._failed = failed
        self._probe = probe

    async def facts(self) -> RuntimeFacts:
        """Proves the fence by probe containers; raises ``ProbeFailedError``."""
        return await self._probe.prove(self)

    async def start(self, job: Job) -> SandboxHandle:
        """Starts one; raises ``StartFailedError`` and then leaves nothing behind."""
        command = await self._resolve(job)
        config = json.dumps(guest_config(job, command))
        await asyncio.to_thread((job.folder.bridge / "guest.json").write_text, config)
        arguments = container_arguments(job, command, self._host)
        try:
            container: Any = await self.engine.call(lambda client: client.containers.create(**arguments))
        except (*ENGINE_ERRORS, TimeoutError) as error:
            await self._remove_by_name(arguments["name"])
            raise StartFailedError(RunOutcome.START_FAILED, "create: " + explain(error)) from error
        try:
            await self.engine.call(lambda _: container.start())
        except (*ENGINE_ERRORS, TimeoutError) as error:
            await self._failed.clean(container.id)
            raise StartFailedError(RunOutcome.START_FAILED, "start: " + explain(error)) from error
        return DockerHandle(self.engine, container.id)

    async def _resolve(self, job: Job) -> ImageCommand:
        try:
            image = await self.engine.call(lambda client: client.api.inspect_image(job.spec.image))
        except ImageNotFound as error:
            raise StartFailedError(RunOutcome.IMAGE_MISSING, f"{job.spec.image} is not on this host") from error
        except (*ENGINE_ERRORS, TimeoutError) as error:
            raise StartFailedError(RunOutcome.START_FAILED, "image: " + explain(error)) from error
        return resolve_command(image, job.spec)

    async def _remove_by_name(self, name: str) -> None:
        with contextlib.suppress(*ENGINE_ERRORS, TimeoutError):
            await self.engine.call(lambda client: client.api.remove_container(name, force=True, v=True))

    async def find(self) -> list[Found]:
        """Returns every container with this runtime's label, ended ones too."""
        listed: list[dict[str, Any]] = await self.engine.call(
            lambda client: client.api.containers(all=True, filters={"label": f"{LABEL_OWNER}={self._host.owner}"})
        )
        return [
            Found(
                run=RunRef(run_id=entry["Labels"][LABEL_RUN], attempt=int(entry["Labels"][LABEL_ATTEMPT])),
                container_id=entry["Id"],
                started=entry["State"] != "created",
            )
            for entry in listed
        ]

    def attach(self, container_id: str) -> SandboxHandle:
        """Returns the handle of a found one."""
        return DockerHandle(self.engine, container_id)


def _exit_of(state: dict[str, Any]) -> SandboxExit:
    return SandboxExit(
        exit_code=state["ExitCode"],
        oom_flag=bool(state["OOMKilled"]),
        started_at=_time(state["StartedAt"]),
        ended_at=_time(state["FinishedAt"]),
        error=state["Error"] or "",
    )


def _time(text: str) -> datetime | None:
    """Docker writes nanoseconds, which Python does not read, and year 1 for never."""
    if text.startswith("0001-"):
        return None
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}+00:00")
