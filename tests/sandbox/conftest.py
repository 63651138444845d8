"""The real parts: a Docker engine with gVisor, the guest and the sandbox image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.container_arguments import Host
from sandbox.docker_runner import DockerRunner
from sandbox.engine import Engine
from sandbox.failed_start import FailedStarts
from sandbox.image.build import build
from sandbox.probe import Probe, ProbeSettings
from tests.sandbox.private_engine import GUEST, PACKAGES, PrivateEngine, missing
from workers.stack.docker_engine import RUNTIME


@dataclass(frozen=True)
class RealEngine:
    """Where the real tests run."""

    host: str
    image: str
    containerd: str | None
    private: PrivateEngine | None


def _build_image(host: str) -> str:
    return build(host, PACKAGES, lambda text: None)


@pytest.fixture(scope="session")
def engine_host() -> Iterator[RealEngine]:
    """An engine with the image; a private one unless AWGP_TEST_DOCKER_HOST names another."""
    given = os.environ.get("AWGP_TEST_DOCKER_HOST")
    if given:
        containerd = os.environ.get("AWGP_TEST_CONTAINERD")
        yield RealEngine(given, _build_image(given), containerd, None)
        return
    lacking = missing()
    if lacking:
        pytest.fail(lacking)
    private = PrivateEngine()
    try:
        private.start()
        yield RealEngine(private.host, _build_image(private.host), str(private.containerd), private)
    finally:
        private.stop()


@pytest.fixture
def crashing_engine(engine_host: RealEngine) -> Iterator[PrivateEngine]:
    """An engine that may be crashed: the session's own, or another one beside a given one."""
    if engine_host.private is not None:
        yield engine_host.private
        return
    lacking = missing()
    if lacking:
        pytest.skip(lacking)
    engine = PrivateEngine()
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()


@dataclass(frozen=True)
class RealRunner:
    """A Docker runner and the way to it."""

    runner: DockerRunner
    engine: Engine
    image: str
    base: Path
    failed: FailedStarts


def docker_runner(real: RealEngine, base: Path) -> RealRunner:
    engine = Engine(real.host, threads=16)
    failed = FailedStarts(engine, real.containerd)
    probe = Probe(engine, ProbeSettings(real.image, RUNTIME, base / "state", base / "mounts"))
    host = Host(owner=base.name, docker_runtime=RUNTIME, guest=GUEST.resolve())
    return RealRunner(DockerRunner(engine, host, failed, probe), engine, real.image, base, failed)


@pytest.fixture
def real(engine_host: RealEngine, tmp_path: Path) -> Iterator[RealRunner]:
    made = docker_runner(engine_host, tmp_path)
    yield made
    made.engine.close()
