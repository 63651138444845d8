"""Create → the container's first byte: ours beside ``docker run`` of the same image and gVisor.

``python -m bench.sandbox [--docker-host unix://…] [--guest PATH] [--image TAG]``; without a host it uses the
embedded engine while that is up, else one of its own. Alternated rounds, so that a busy machine is busy for
all three: ``docker run`` with nothing, ``docker run`` with the arguments that our sandboxes get, and ours,
which adds the guest, the bridge, the spool and its disk.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from bench.sandbox.docker_run import first_byte, flags_of
from sandbox.container_arguments import Host, container_arguments
from sandbox.docker_runner import DockerRunner
from sandbox.engine import Engine
from sandbox.execution import Execution
from sandbox.failed_start import FailedStarts
from sandbox.image.build import build
from sandbox.image_command import ImageCommand
from sandbox.link.messages import RunRef
from sandbox.probe import Probe, ProbeSettings
from sandbox.run_folder import RunFolder
from sandbox.runner import Job
from sandbox.spec import RunSpec
from tests.sandbox.private_engine import DATA, GUEST, PACKAGES, PrivateEngine, missing

PROMISE_MS = 150


@dataclass
class Contest:
    """What is measured, and on what."""

    runner: DockerRunner
    host: Host
    docker_host: str
    image: str
    base: Path

    def job(self) -> Job:
        run = RunRef(run_id=uuid4(), attempt=1)
        folder = RunFolder.of(self.base / "state", self.base / "mounts", run)
        spec = RunSpec(
            run_id=run.run_id,
            work_item_id=run.run_id,
            tenant_id=run.run_id,
            assistant_id=run.run_id,
            image=self.image,
            entrypoint=("echo", "x"),
        )
        return Job(run, spec, folder, lambda: 120.0)

    async def plain(self) -> float:
        return await first_byte(self.docker_host, self.host.docker_runtime, self.image, [])

    async def same(self) -> float:
        job = self.job()
        job.folder.make()
        arguments = container_arguments(job, ImageCommand(("echo", "x"), {}, "/", ()), self.host)
        flags = flags_of(arguments, self.base / "seccomp.json")
        return await first_byte(self.docker_host, self.host.docker_runtime, self.image, flags)

    async def ours(self) -> float:
        """A whole execution, in milliseconds to its first byte."""
        job = self.job()
        containers: list[str] = []
        first: list[float] = []

        async def remember(container_id: str, _: object) -> None:
            containers.append(container_id)

        began = time.perf_counter()
        job.folder.make()
        execution = Execution(self.runner, job, remember)
        execution.bridge.first_byte = lambda: first.append(time.perf_counter())
        result = await execution.run()
        for container in containers:
            await self.runner.attach(container).remove()
        execution.bridge.spool.close()
        if not first:
            raise SystemExit(f"no byte came: {result.outcome}: {result.detail}")
        return (first[0] - began) * 1000


async def measure(options: argparse.Namespace, docker_host: str, image: str) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory(prefix="awgp-bench-") as name:
        base = Path(name)
        engine = Engine(docker_host, threads=8)
        host = Host(owner=base.name, docker_runtime=options.runtime, guest=options.guest.resolve())
        probe = Probe(engine, ProbeSettings(image, options.runtime, base, base / "mounts"))
        contest = Contest(DockerRunner(engine, host, FailedStarts(engine, None), probe), host, docker_host, image, base)
        ways = (contest.plain, contest.same, contest.ours)
        for way in ways:
            await way()  # Warms caches; not counted.
        rounds: list[tuple[float, ...]] = []
        print(f"{'round':>5} {'docker run':>11} {'with our limits':>16} {'ours':>6}   (ms to the first byte, medians)")
        for number in range(1, options.rounds + 1):
            taken: tuple[list[float], ...] = ([], [], [])
            for _ in range(options.each):
                for way, times in zip(ways, taken, strict=True):
                    times.append(await way())
            medians = tuple(statistics.median(times) for times in taken)
            rounds.append(medians)
            print(f"{number:>5} {medians[0]:>11.0f} {medians[1]:>16.0f} {medians[2]:>6.0f}")
        report(rounds, options.each)
        engine.close()


def report(rounds: list[tuple[float, ...]], each: int) -> None:
    """Prints medians, ratios with their spread, and the difference beside the promise."""
    plain, same, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"medians: docker run {plain:.0f} ms, with our limits {same:.0f} ms, ours {ours:.0f} ms")
    for column, name in enumerate(("docker run", "docker run with our limits")):
        ratios = sorted(line[2] / line[column] for line in rounds)
        over = sorted(line[2] - line[column] for line in rounds)
        middle = statistics.median(over)
        print(
            f"ours / {name}: {statistics.median(ratios):.2f} (spread {ratios[0]:.2f}–{ratios[-1]:.2f}); "
            f"over it {middle:+.0f} ms (spread {over[0]:+.0f} to {over[-1]:+.0f}); "
            f"promise: at most +{PROMISE_MS} ms: {'held' if middle <= PROMISE_MS else 'NOT HELD'}"
        )
    print(f"{len(rounds)} rounds of {each}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


@contextlib.contextmanager
def engine_for(given: str | None) -> Generator[str]:
    """The engine that was named, else the embedded one, else one for the length of the bench."""
    embedded = DATA / "docker" / "docker.sock"
    if given or embedded.is_socket():
        yield given or f"unix://{embedded}"
        return
    lacking = missing()
    if lacking:
        raise SystemExit(lacking)
    private = PrivateEngine()
    try:
        private.start()
        yield private.host
    finally:
        private.stop()


def main() -> None:
    """Reads the options."""
    parser = argparse.ArgumentParser(prog="python -m bench.sandbox", description=__doc__)
    parser.add_argument("--docker-host")
    parser.add_argument("--guest", type=Path, default=GUEST)
    parser.add_argument("--image", help="default: the sandbox image, built where it is missing")
    parser.add_argument("--runtime", default="runsc-awgp")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--each", type=int, default=5)
    options = parser.parse_args()
    with engine_for(options.docker_host) as docker_host:
        image = options.image or build(docker_host, PACKAGES, lambda text: None)
        asyncio.run(measure(options, docker_host, image))


if __name__ == "__main__":
    main()
