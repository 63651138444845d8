"""The guest's view of the real parts: the engine and the binary that all sandbox tests use."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.sandbox.conftest import RealEngine
from tests.sandbox.private_engine import GUEST


@pytest.fixture(scope="session")
def engine(engine_host: RealEngine) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=engine_host.host, timeout=60)
    yield client
    client.close()


@pytest.fixture(scope="session")
def guest() -> Path:
    return GUEST.resolve()


@pytest.fixture(scope="session")
def go() -> str:
    beside_python = shutil.which("go", path=str(Path(sys.executable).parent))
    found = os.environ.get("GO") or beside_python or shutil.which("go")
    if not found:
        pytest.fail("no Go: the set-up brings one, or set GO")
    return found
