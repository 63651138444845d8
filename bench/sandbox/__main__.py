"""Sandboxes: cold starts, warm claims, the bridge's round trip, eight at once.

``python -m bench.sandbox [--docker-host unix://…] [--guest PATH] [--image TAG] [--rounds N]``; without a host it uses
the embedded engine while that is up, else one of its own. Rivals take turns, so that a busy machine is busy for all.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import Generator
from pathlib import Path

import structlog

from bench.sandbox.bare_runsc import BareRunsc
from bench.sandbox.cold import cold, together
from bench.sandbox.contest import Contest
from bench.sandbox.round_trip import round_trips
from bench.sandbox.warm import warm
from sandbox.container_arguments import Host
from sandbox.docker_runner import DockerRunner
from sandbox.engine import Engine
from sandbox.failed_start import FailedStarts
from sandbox.image.build import build
from sandbox.probe import Probe, ProbeSettings
from tests.sandbox.private_engine import DATA, GUEST, PACKAGES, PrivateEngine, missing, runsc


async def measure(options: argparse.Namespace, docker_host: str, image: str) -> None:
    """Prints all tables."""
    with tempfile.TemporaryDirectory(prefix="awgp-bench-") as name:
        base = Path(name)
        engine = Engine(docker_host, threads=32)
        host = Host(owner=base.name, docker_runtime=options.runtime, guest=options.guest.resolve())
        probe = Probe(engine, ProbeSettings(image, options.runtime, base, base / "mounts"))
        runner = DockerRunner(engine, host, FailedStarts(engine, None), probe)
        contest = Contest(runner, host, docker_host, image, (await runner.image(image))["Id"], base)
        binary = runsc()
        if binary is None:
            raise SystemExit("no runsc")
        bare = BareRunsc(binary, base / "bundle")
        bare.unpack(docker_host, image)
        await cold(contest, bare, options.rounds, options.each)
        await warm(contest, options.rounds * 4)
        await round_trips(contest, options.rounds * 100)
        await together(contest)
        print(f"\nload {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        engine.close()


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
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS") or 5))
    parser.add_argument("--each", type=int, default=3)
    options = parser.parse_args()
    # What a runtime says as it goes is not the bench's to print.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with engine_for(options.docker_host) as docker_host:
        image = options.image or build(docker_host, PACKAGES, lambda text: None)
        asyncio.run(measure(options, docker_host, image))


if __name__ == "__main__":
    main()
