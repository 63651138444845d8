"""Create → the container's first byte: ours beside ``docker run`` of the same image and gVisor.

``python -m bench.sandbox [--docker-host unix://…] [--guest PATH] [--image TAG]``. Five alternated rounds, so
that a busy machine is busy for both. Ours has every limit, the guest and the bridge; the floor has none.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from sandbox.container_arguments import Host
from sandbox.docker_runner import DockerRunner
from sandbox.engine import Engine
from sandbox.execution import Execution
from sandbox.failed_start import FailedStarts
from sandbox.link.messages import RunRef
from sandbox.probe import Probe, ProbeSettings
from sandbox.run_folder import RunFolder
from sandbox.runner import Job
from sandbox.spec import RunSpec

GOAL_MS = 150


async def floor(docker_host: str, runtime: str, image: str) -> float:
    """``docker run`` to its first byte, in milliseconds."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        "docker", "-H", docker_host, "run", "--rm", f"--runtime={runtime}", "--network=none", image, "echo", "x",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    await process.stdout.readexactly(1)
    taken = time.perf_counter() - began
    await process.wait()
    return taken * 1000


async def ours(runner: DockerRunner, image: str, base: Path) -> float:
    """A whole execution to its first byte, in milliseconds."""
    run = RunRef(run_id=uuid4(), attempt=1)
    folder = RunFolder.of(base / "state", base / "mounts", run)
    spec = RunSpec(
        run_id=run.run_id,
        work_item_id=run.run_id,
        tenant_id=run.run_id,
        assistant_id=run.run_id,
        image=image,
        entrypoint=("echo", "x"),
    )
    containers: list[str] = []
    first: list[float] = []

    async def remember(container_id: str, _: object) -> None:
        containers.append(container_id)

    began = time.perf_counter()
    folder.make()
    execution = Execution(runner, Job(run, spec, folder, lambda: 120.0), remember)
    execution.bridge.first_byte = lambda: first.append(time.perf_counter())
    result = await execution.run()
    for container in containers:
        await runner.attach(container).remove()
    execution.bridge.spool.close()
    if not first:
        raise SystemExit(f"no byte came: {result.outcome}: {result.detail}")
    return (first[0] - began) * 1000


async def measure(options: argparse.Namespace) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory(prefix="awgp-bench-") as name:
        base = Path(name)
        engine = Engine(options.docker_host, threads=8)
        host = Host(owner=base.name, docker_runtime=options.runtime, guest=options.guest.resolve())
        probe = Probe(engine, ProbeSettings(options.image, options.runtime, base, base / "mounts"))
        runner = DockerRunner(engine, host, FailedStarts(engine, None), probe)
        await floor(options.docker_host, options.runtime, options.image)
        await ours(runner, options.image, base)
        rounds: list[tuple[float, float]] = []
        print(f"{'round':>5} {'docker run ms':>14} {'ours ms':>9} {'over ms':>9} {'ratio':>6}")
        for number in range(1, options.rounds + 1):
            theirs: list[float] = []
            mine: list[float] = []
            for _ in range(options.each):
                theirs.append(await floor(options.docker_host, options.runtime, options.image))
                mine.append(await ours(runner, options.image, base))
            pair = statistics.median(theirs), statistics.median(mine)
            rounds.append(pair)
            print(f"{number:>5} {pair[0]:>14.0f} {pair[1]:>9.0f} {pair[1] - pair[0]:>9.0f} {pair[1] / pair[0]:>6.2f}")
        report(rounds)
        engine.close()


def report(rounds: list[tuple[float, float]]) -> None:
    ratios = sorted(mine / theirs for theirs, mine in rounds)
    over = [mine - theirs for theirs, mine in rounds]
    print(
        f"median ratio {statistics.median(ratios):.2f} (spread {ratios[0]:.2f}–{ratios[-1]:.2f}), "
        f"median over {statistics.median(over):+.0f} ms (goal: at most +{GOAL_MS} ms), "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


def main() -> None:
    """Reads the options."""
    data = Path(os.environ.get("AWGP_DATA", ".awgp")).resolve()
    parser = argparse.ArgumentParser(prog="python -m bench.sandbox", description=__doc__)
    parser.add_argument("--docker-host", default=f"unix://{data}/docker/docker.sock")
    parser.add_argument("--guest", type=Path, default=Path(os.environ.get("AWGP_CACHE", data / "cache")) / "guest")
    parser.add_argument("--image", default="awgp/sandbox:latest")
    parser.add_argument("--runtime", default="runsc-awgp")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--each", type=int, default=5)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
