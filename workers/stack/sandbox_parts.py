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
AGENT = "openai"
"""Whose image is built too: the seeded clerk's, an agent on OpenAI's client."""
IMAGES = (IMAGE, f"awgp/agent-{AGENT}:latest")


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
    """Build the images of the seeded assistants into the engine, unless it holds those of these very sources."""
    stamp = paths.stamps / "image"
    wanted = _image_sources()
    if stamp.exists() and stamp.read_text() == wanted and _has_images(engine):
        return
    packages = paths.cache / "packages"
    packages.mkdir(exist_ok=True)
    options = ["--docker-host", engine.host, "--packages", packages]
    run([sys.executable, "-m", "sandbox.image.build", *options], "apt-get update && make setup", cwd=CHECKOUT)
    run([sys.executable, "-m", "sandbox.image.agents", *options, AGENT], "make up", cwd=CHECKOUT)
    stamp.write_text(wanted)


def _image_sources() -> str:
    digest = hashlib.sha256()
    for folder in ("sandbox/image", "sandbox/agents", "examples/agents"):
        for path in sorted((CHECKOUT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(CHECKOUT)).encode() + path.read_bytes())
    return digest.hexdigest()


def _has_images(engine: DockerEngine) -> bool:
    with closing(docker.DockerClient(base_url=engine.host, timeout=30)) as client:
        try:
            for image in IMAGES:
                client.images.get(image)
        except docker.errors.ImageNotFound:
            return False
    return True
