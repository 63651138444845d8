"""What sandboxes need: gVisor and the guest (built by Go, beside other steps), and the image."""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import docker
import docker.errors

from workers.stack import gvisor
from workers.stack.docker_engine import DockerEngine
from workers.stack.paths import CHECKOUT, Paths
from workers.stack.steps import run

IMAGE = "awgp/sandbox:latest"


def build_in_background(paths: Paths) -> Future[Path]:
    """Begin to find or build runsc and to build the guest; the answer is runsc's path."""

    def build() -> Path:
        runsc = gvisor.find_or_build(paths)
        gvisor.build_guest(paths)
        return runsc

    pool = ThreadPoolExecutor(1, thread_name_prefix="go-build")
    future = pool.submit(build)
    pool.shutdown(wait=False)
    return future


def build_image(paths: Paths, engine: DockerEngine) -> None:
    """Build the sandbox image into the engine, unless it holds the image of these very sources."""
    stamp = paths.stamps / "image"
    wanted = _image_sources()
    if stamp.exists() and stamp.read_text() == wanted and _has_image(engine):
        return
    packages = paths.cache / "packages"
    packages.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "sandbox.image.build", "--docker-host", engine.host, "--packages", packages]
    run(command, "apt-get update && make setup", cwd=CHECKOUT)
    stamp.write_text(wanted)


def _image_sources() -> str:
    digest = hashlib.sha256()
    for folder in ("image", "agents"):
        for path in sorted((CHECKOUT / "sandbox" / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(CHECKOUT)).encode() + path.read_bytes())
    return digest.hexdigest()


def _has_image(engine: DockerEngine) -> bool:
    with closing(docker.DockerClient(base_url=engine.host, timeout=30)) as client:
        try:
            client.images.get(IMAGE)
        except docker.errors.ImageNotFound:
            return False
    return True
