"""Sandboxes as Docker containers under gVisor."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from docker.errors import APIError, ImageNotFound, NotFound

from sandbox.container_arguments import (
    LABEL_ATTEMPT,
    LABEL_OWNER,
    LABEL_PREPARED,
    LABEL_RUN,
    LABEL_TENANT,
    Host,
    container_arguments,
    guest_config,
)
from sandbox.engine import ENGINE_ERRORS, Engine, explain
from sandbox.failed_start import FailedStarts
from sandbox.image_command import ImageCommand, resolve_command, volumes_of
from sandbox.link.messages import RunRef, RuntimeFacts
from sandbox.probe import Probe
from sandbox.run_folder import RunFolder
from sandbox.runner import Found, Job, SandboxExit, SandboxHandle, StartFailedError, StartUnsureError, Usage
from sandbox.spec import RunOutcome, RunSpec

log = structlog.get_logger(__name__)

_WAIT_SECONDS = 30.0
_PREPARED_WAIT_SECONDS = 20.0
"""How long a prepared sandbox outlives the runtime that it was prepared for."""
_CREATED = "created"
_SERVER_ERROR = 500


class DockerHandle:
    """One container."""

    simulated = False

    def __init__(self, engine: Engine, failed: FailedStarts, container_id: str) -> None:
        self._engine = engine
        self._failed = failed
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
            if state["Status"] == _CREATED:
                # The engine died before it wrote down that this one runs, and lists it as never started.
                return SandboxExit(exit_code=None, gone=True)
            if not state["Running"]:
                return _exit_of(state)

    async def _inspect(self) -> dict[str, Any]:
        answer = await self._engine.call(lambda client: client.api.inspect_container(self.container_id))
        return answer["State"]

    async def kill(self) -> None:
        """Kills it; tries until the engine is there to do it."""
        stands = await self.paused()
        try:
            await self._kill()
        finally:
            if stands:
                # Docker wakes what it has killed, fails at that, and leaves the shim. (Its end may be seen, and this
                # be cancelled, before the engine has answered.)
                self._failed.cure(self.container_id)

    async def _kill(self) -> None:
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

    async def pause(self) -> bool:
        """Lets it stand still; False when it does not."""
        await self._ask(lambda client: client.api.pause(self.container_id))
        return await self.paused()

    async def unpause(self) -> bool:
        """Lets it go on; False when it still stands."""
        await self._ask(lambda client: client.api.unpause(self.container_id))
        return not await self.paused()

    async def _ask(self, work: Callable[[Any], Any]) -> None:
        """What became of it is read from the engine afterwards, whatever it answered."""
        try:
            await self._engine.call(work)
        except (*ENGINE_ERRORS, TimeoutError) as error:
            log.warning("pause_or_unpause_failed", container=self.container_id, error=explain(error))

    async def paused(self) -> bool:
        """Whether it stands still, as the engine says; waits for an engine that is away."""
        while True:
            try:
                return bool((await self._inspect())["Paused"])
            except NotFound:
                return False
            except (*ENGINE_ERRORS, TimeoutError):
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
            if (await self._inspect())["Status"] == _CREATED:
                await self._failed.clean(self.container_id)
                return
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
        """Starts one, whose guest waits for its job; raises ``StartFailedError`` or ``StartUnsureError``."""
        command = await self._resolve(job)
        config = guest_config(job, command) | {"wait": True, "wait_seconds": job.lease()}
        return await self._start(job, config, container_arguments(job, command, self._host))

    async def prepare(self, spec: RunSpec, folder: RunFolder, name: str) -> SandboxHandle:
        """Starts one whose labels name no run: which run has it, is known by the run's own record."""
        job = Job(RunRef(run_id=spec.run_id, attempt=1), spec, folder, lambda: 0.0)
        image = await self.image(spec.image)
        try:
            command = resolve_command(image, spec)  # What most runs of it will be; it is not started.
        except StartFailedError:
            command = ImageCommand((), {}, "/workspace", volumes_of(image))
        labels = {LABEL_PREPARED: name, LABEL_TENANT: str(spec.tenant_id), LABEL_OWNER: self._host.owner}
        arguments = container_arguments(job, command, self._host)
        arguments |= {"name": f"awgp-prepared-{name}", "labels": labels}
        config = guest_config(job, command) | {"wait": True, "wait_seconds": _PREPARED_WAIT_SECONDS, "rehearse": True}
        return await self._start(job, config, arguments)

    async def _start(self, job: Job, config: dict[str, object], arguments: dict[str, Any]) -> SandboxHandle:
        await asyncio.to_thread((job.folder.bridge / "guest.json").write_text, json.dumps(config))
        container: Any = await self._try("create", lambda client: client.containers.create(**arguments))
        try:
            await self._try("start", lambda _: container.start())
        except StartFailedError:
            await self._failed.clean(container.id)
            raise
        return self.attach(container.id)

    async def image(self, reference: str) -> dict[str, Any]:
        """Returns what the engine knows of an image."""
        return await self._try("image", lambda client: client.api.inspect_image(reference))

    async def _resolve(self, job: Job) -> ImageCommand:
        return resolve_command(await self.image(job.spec.image), job.spec)

    async def _try(self, what: str, work: Callable[[Any], Any]) -> Any:
        """One step of a start, its errors told apart: refused for good, failed for now, or no answer."""
        try:
            return await self.engine.call(work)
        except ImageNotFound as error:
            raise StartFailedError(RunOutcome.IMAGE_MISSING, f"{what}: {explain(error)}") from error
        except APIError as error:
            if (error.status_code or 0) >= _SERVER_ERROR:
                raise StartUnsureError(f"{what}: {explain(error)}", away=False) from error
            raise StartFailedError(RunOutcome.START_FAILED, f"{what}: {explain(error)}") from error
        except (*ENGINE_ERRORS, TimeoutError) as error:
            raise StartUnsureError(f"{what}: {explain(error)}", away=True) from error

    async def clear(self, run: RunRef) -> None:
        """Ends and removes every container of this run; also what the engine has forgotten of it."""
        labels = [f"{LABEL_OWNER}={self._host.owner}", f"{LABEL_RUN}={run.run_id}", f"{LABEL_ATTEMPT}={run.attempt}"]
        listed: list[dict[str, Any]] = await self._try(
            "clear", lambda client: client.api.containers(all=True, filters={"label": labels})
        )
        for entry in listed:
            await self._failed.clean(entry["Id"])
            if not await self._is_gone(entry["Id"]):
                raise StartUnsureError("clear: a sandbox of an earlier try is still there", away=False)

    async def _is_gone(self, container_id: str) -> bool:
        try:
            await self._try("clear", lambda client: client.api.inspect_container(container_id))
        except StartFailedError:
            return True
        return False

    async def find(self) -> list[Found]:
        """Returns every container with this runtime's label, ended ones too."""
        listed: list[dict[str, Any]] = await self.engine.call(
            lambda client: client.api.containers(all=True, filters={"label": f"{LABEL_OWNER}={self._host.owner}"})
        )
        return [
            Found(
                run=_run_of(entry["Labels"]),
                container_id=entry["Id"],
                started=entry["State"] != _CREATED,
                prepared=entry["Labels"].get(LABEL_PREPARED),
            )
            for entry in listed
        ]

    def attach(self, container_id: str) -> SandboxHandle:
        """Returns the handle of a found one."""
        return DockerHandle(self.engine, self._failed, container_id)


def _run_of(labels: dict[str, str]) -> RunRef | None:
    if LABEL_RUN not in labels:
        return None
    return RunRef(run_id=UUID(labels[LABEL_RUN]), attempt=int(labels[LABEL_ATTEMPT]))


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
