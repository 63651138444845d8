"""What all parts of the bench share: an engine, an image, a runner, and one execution."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from sandbox.agent_forwarding import Outside
from sandbox.container_arguments import Host
from sandbox.docker_runner import DockerRunner
from sandbox.execution import Execution
from sandbox.link.messages import LogRecord, RunRef
from sandbox.placement_store import StartRecord
from sandbox.run_folder import RunFolder, write_durably
from sandbox.runner import Job
from sandbox.spec import RunOutcome, RunSpec
from sandbox.warm_pool import Prepared


@dataclass
class Ran:
    """One execution: milliseconds from its beginning.

    Attributes:
        first_byte: Until the host had the first byte.
        inside: Until the guest had read it inside, by its own clock.
    """

    first_byte: float
    inside: float
    output: bytes


@dataclass
class Contest:
    """What is measured, and on what."""

    runner: DockerRunner
    host: Host
    docker_host: str
    image: str
    image_id: str
    base: Path

    def job(self, *command: str, **fields: Any) -> Job:
        """Names a run of ``command``; makes nothing."""
        outside: Outside | None = fields.pop("outside", None)
        run = RunRef(run_id=uuid4(), attempt=1)
        folder = RunFolder.of(self.base / "state", self.base / "mounts", run)
        spec = RunSpec(
            run_id=run.run_id,
            work_item_id=run.run_id,
            tenant_id=run.run_id,
            assistant_id=run.run_id,
            image=self.image,
            image_digest=self.image_id,
            entrypoint=command or ("echo", "x"),
            **fields,
        )
        return Job(run, spec, folder, lambda: 120.0, outside=outside)

    async def execute(self, job: Job, prepared: Prepared | None = None) -> Ran:
        """A whole execution, with what the runtime writes down for it."""
        containers: list[str] = []
        first: list[float] = []

        async def remember(container_id: str, at: datetime) -> None:
            containers.append(container_id)
            record = StartRecord(container_id=container_id, started_at=at)
            write_durably(job.folder.state / "started.json", record.model_dump_json().encode())

        began, wall = time.perf_counter(), time.time()
        job.folder.make()
        if prepared is not None:
            job.folder.adopt(prepared.mounts)
        execution = Execution(self.runner, job, remember, prepared)
        execution.bridge.first_byte = lambda: first.append(time.perf_counter())
        result = await execution.run()
        for container in containers:
            await self.runner.attach(container).remove()
        records: list[LogRecord] = execution.bridge.spool.read(0, 1 << 20)
        execution.bridge.spool.close()
        if result.outcome is not RunOutcome.SUCCEEDED or not first:
            raise SystemExit(f"it did not run: {result.outcome}: {result.detail}")
        job.folder.remove()
        output = b"".join(record.data for record in records)
        return Ran((first[0] - began) * 1000, (records[0].at.timestamp() - wall) * 1000, output)
