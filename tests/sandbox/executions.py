"""Runs one spec for real and returns all that is known of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from sandbox.execution import Execution
from sandbox.link.messages import RunRef
from sandbox.runner import Job
from sandbox.spec import Limits, RunResult, RunSpec
from tests.sandbox.conftest import RealRunner
from tests.sandbox.specs import folder_in, spec_of

MIB = 1024 * 1024


def python(real: RealRunner, script: str, **fields: Any) -> RunSpec:
    limits = fields.pop("limits", None) or Limits(wall_seconds=60)
    return spec_of(image=real.image, entrypoint=("python3", "-c", script), limits=limits, **fields)


@dataclass
class Lab:
    """An execution under way; ``containers`` are removed at its end."""

    real: RealRunner
    execution: Execution
    job: Job
    containers: list[str] = field(default_factory=list[str])

    def output(self) -> bytes:
        spool = self.execution.bridge.spool
        return b"".join(record.data for record in spool.read(0, spool.end + 1))


@contextlib.asynccontextmanager
async def lab(real: RealRunner, spec: RunSpec) -> AsyncGenerator[Lab]:
    run = RunRef(run_id=spec.run_id, attempt=1)
    job = Job(run, spec, folder_in(real.base, run), lambda: 120.0)
    containers: list[str] = []

    async def remember(container_id: str, _: object) -> None:
        containers.append(container_id)

    made = Lab(real, Execution(real.runner, job, remember), job, containers)
    try:
        yield made
    finally:
        for container in containers:
            await real.runner.attach(container).remove()
        made.execution.bridge.spool.close()


async def run(real: RealRunner, spec: RunSpec) -> tuple[RunResult, bytes]:
    async with lab(real, spec) as made:
        result = await made.execution.run()
        return result, made.output()
