"""Real parts for the guest: the engine, gVisor and the binary that the embedded stack has set up.

``AWGP_TEST_DOCKER_HOST`` and ``AWGP_TEST_GUEST`` name others; without either the tests say what is missing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException

CHECKOUT = Path(__file__).parents[3]
DATA = Path(os.environ.get("AWGP_DATA", CHECKOUT / ".awgp"))
RUNTIME = "runsc-awgp"


@pytest.fixture(scope="session")
def docker_host() -> str:
    host = os.environ.get("AWGP_TEST_DOCKER_HOST")
    socket = DATA / "docker" / "docker.sock"
    if host is None and not socket.exists():
        pytest.skip(f"no engine at {socket}: make up, or set AWGP_TEST_DOCKER_HOST")
    return host or f"unix://{socket}"


@pytest.fixture(scope="session")
def engine(docker_host: str) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=docker_host, timeout=60)
    try:
        runtimes = client.info()["Runtimes"]
    except DockerException as problem:
        client.close()
        pytest.skip(f"the engine does not answer: {problem}")
    if RUNTIME not in runtimes:
        client.close()
        pytest.skip(f"the engine has no runtime {RUNTIME}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def guest() -> Path:
    path = Path(os.environ.get("AWGP_TEST_GUEST", DATA / "cache" / "guest"))
    if not path.exists():
        pytest.skip(f"no guest at {path}: sandbox/guest/build.sh, or set AWGP_TEST_GUEST")
    return path.resolve()


@pytest.fixture(scope="session")
def go() -> str:
    found = os.environ.get("GO") or shutil.which("go")
    if not found:
        pytest.skip("no Go: set GO")
    return found
