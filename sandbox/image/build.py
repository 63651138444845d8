"""Builds the sandbox image without a registry.

``python -m sandbox.image.build --docker-host unix:///…/docker.sock [--packages FOLDER]`` prints the tag. The tag
is a hash of what goes in (packages, agents, recipe), so the same content is never built twice.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException, ImageNotFound

from sandbox.image import layout, packages

REPOSITORY = "awgp/sandbox"
AGENTS = Path(__file__).parent.parent / "agents"
PYTHON_LABEL = "awgp.python"
SETTINGS = [
    "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "ENV LANG=C.UTF-8",
    "ENV PYTHONDONTWRITEBYTECODE=1",
    f"USER {layout.AGENT_UID}:{layout.AGENT_UID}",
    "WORKDIR /workspace",
    'CMD ["python3"]',
]


def build(docker_host: str, kept: Path, say: Callable[[str], None], agents: Path = AGENTS) -> str:
    """Builds ``awgp/sandbox:<hash of its content>`` unless the engine has it, and tags it ``latest``.

    Args:
        docker_host: The engine's address, for instance ``unix:///run/docker.sock``.
        kept: Folder where downloaded packages are kept for the next build.
        say: Told each step in words.
        agents: Folder of agents that the image carries.

    Returns:
        The full tag.

    Raises:
        PackagesMissingError: Packages could not be had.
        LayoutError: The packages do not hold what the image needs.
        docker.errors.DockerException: The engine did not answer or refused.
    """
    client = docker.DockerClient(base_url=docker_host, timeout=300)
    try:
        say("resolving packages")
        debs = packages.fetch(kept)
        version = content_version(debs, agents)
        tag = f"{REPOSITORY}:{version}"
        if not has(client, tag):
            with tempfile.TemporaryDirectory(prefix="awgp-image-") as scratch:
                archive = _make(Path(scratch), debs, agents, say)
                say("importing into the engine")
                import_archive(client, archive, tag, [*SETTINGS, f"LABEL {PYTHON_LABEL}={_python(debs)}"])
        client.images.get(tag).tag(REPOSITORY, "latest")
        return tag
    finally:
        client.close()


def content_version(debs: list[Path], agents: Path) -> str:
    """Returns 16 hex digits that change when the image's content would."""
    recipe = [Path(__file__), Path(layout.__file__), Path(packages.__file__)]
    carried = [path for path in agents.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    digest = hashlib.sha256()
    for path in [*sorted(recipe), *sorted(debs), *sorted(carried)]:
        name = str(path.relative_to(agents)) if path.is_relative_to(agents) else path.name
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def has(client: docker.DockerClient, tag: str) -> bool:
    """Whether the engine holds an image."""
    try:
        client.images.get(tag)
    except ImageNotFound:
        return False
    return True


def import_archive(client: docker.DockerClient, archive: Path, tag: str, settings: list[str]) -> None:
    """Makes an image of a tar file."""
    repository, _, version = tag.partition(":")
    engine: Any = client.api  # its import calls have no types
    engine.import_image_from_file(str(archive), repository=repository, tag=version, changes=settings)


def _python(debs: list[Path]) -> str:
    """The version of the image's Python: that of the package python3.N."""
    found = [match[1] for deb in debs if (match := re.match(r"python(3\.\d+)_", deb.name))]
    if not found:
        raise layout.LayoutError("the packages brought no Python")
    return found[0]


def _make(scratch: Path, debs: list[Path], agents: Path, say: Callable[[str], None]) -> Path:
    root = scratch / "root"
    say(f"unpacking {len(debs)} packages")
    layout.prepare(root)
    packages.unpack(debs, root)
    say("laying out users, commands, agents; compiling modules")
    layout.finish(root, agents)
    archive = scratch / "image.tar"
    write_archive(root, archive)
    return archive


def write_archive(root: Path, archive: Path) -> None:
    """Writes ``root`` as a tar file owned by root, sorted and without times."""
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(root.rglob("*")):
            tar.add(path, arcname=str(path.relative_to(root)), recursive=False, filter=_anonymous)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mtime = 0
    return entry


def main() -> int:
    """Runs the build from the command line."""
    parser = argparse.ArgumentParser(description="Build the sandbox image without a registry.")
    parser.add_argument("--docker-host", default=os.environ.get("DOCKER_HOST", "unix:///run/docker.sock"))
    # Kept packages are not verified again: never in a folder that others may write, as /tmp is.
    data = Path(os.environ.get("AWGP_DATA", Path(__file__).parents[2] / ".awgp"))
    parser.add_argument("--packages", type=Path, default=data / "packages", help="where packages are kept")
    arguments = parser.parse_args()
    try:
        tag = build(arguments.docker_host, arguments.packages, lambda text: print(text, file=sys.stderr))  # noqa: T201
    except (packages.PackagesMissingError, layout.LayoutError, DockerException) as problem:
        print(f"the sandbox image could not be built: {problem}", file=sys.stderr)  # noqa: T201
        return 1
    print(tag)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
