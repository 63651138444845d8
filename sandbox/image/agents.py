"""Images of agents that others wrote, without a registry: the base with packages from PyPI, or Node with some from npm.

``python -m sandbox.image.agents --docker-host unix:///…/docker.sock NAME…`` prints the tags. The agents' own scripts
are in ``examples/agents/<name>``; nothing of AWGP is in these images.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
from docker.errors import BuildError, DockerException

from sandbox.image import build as base
from sandbox.image import layout, node, packages, wheels

PYTHON_AGENTS = ("openai", "pydantic-ai", "smolagents")
NODE_AGENT = "node"
NAMES = (*PYTHON_AGENTS, NODE_AGENT)
SCRIPTS = Path(__file__).parents[2] / "examples" / "agents"
REQUIREMENTS = Path(__file__).parent / "requirements"
NODE_ROOTS = ("busybox-static", "libstdc++6")
_SHARED = "permission.py"
"""What the agents in Python have in common."""
_BUILD_SECONDS = 300

_DOCKERFILE = """\
FROM {base}
ADD layer.tar /
CMD ["python3", "/{scripts}/agent.py"]
"""


def build_agent_image(docker_host: str, kept: Path, say: Callable[[str], None], name: str) -> str:
    """Builds ``awgp/agent-<name>:<hash of its content>`` unless the engine has it, and tags it ``latest``.

    Args:
        docker_host: The engine's address.
        kept: Folder where downloaded packages are kept for the next build.
        say: Told each step in words.
        name: One of ``NAMES``.

    Returns:
        The full tag.

    Raises:
        PackagesMissingError, WheelsMissingError, NodeMissingError: Something could not be had.
        LayoutError: The packages do not hold what the image needs.
        docker.errors.DockerException: The engine did not answer or refused.
    """
    if name not in NAMES:
        raise ValueError(f"there are {', '.join(NAMES)}, not {name}")
    kept.mkdir(parents=True, exist_ok=True)
    client = docker.DockerClient(base_url=docker_host, timeout=_BUILD_SECONDS)
    try:
        make = _node_image if name == NODE_AGENT else _python_image
        tag = make(client, docker_host, kept, say, name)
        client.images.get(tag).tag(_repository(name), "latest")
        return tag
    finally:
        client.close()


def _repository(name: str) -> str:
    return f"awgp/agent-{name}"


def _python_image(
    client: docker.DockerClient, docker_host: str, kept: Path, say: Callable[[str], None], name: str
) -> str:
    from_tag = base.build(docker_host, kept, say)
    python = client.images.get(from_tag).labels[base.PYTHON_LABEL]
    version = _version(name, python, [REQUIREMENTS / f"{name}.txt"])
    tag = f"{_repository(name)}:{version}-{from_tag.rpartition(':')[2]}"
    if not base.has(client, tag):
        layer = _layer(kept, name, version, python, say)
        say(f"{name}: adding to the base")
        recipe = _DOCKERFILE.format(base=from_tag, scripts=f"{layout.AGENTS_FOLDER}/{name}")
        _derive(client, recipe, layer, tag)
    return tag


def _layer(kept: Path, name: str, version: str, python: str, say: Callable[[str], None]) -> Path:
    """A tar file of what an image adds to the base, modules compiled; kept for the next engine."""
    layer = kept / "layers" / f"{name}-{version}.tar"
    if layer.exists():
        return layer
    requirements = REQUIREMENTS / f"{name}.txt"
    with tempfile.TemporaryDirectory(prefix="awgp-agent-") as scratch:
        root, system = Path(scratch) / "root", Path(scratch) / "system"
        modules = root / "usr/local/lib" / f"python{python}" / "dist-packages"
        modules.mkdir(parents=True)
        say(f"{name}: fetching wheels for Python {python}")
        wheels.install(requirements, wheels.fetch(requirements, python, kept), python, modules)
        _copy_scripts(name, root)
        say(f"{name}: compiling modules")
        layout.prepare(system)
        packages.unpack(packages.fetch(kept), system)
        layout.compile_modules(system, [modules, root / layout.AGENTS_FOLDER], root)
        layer.parent.mkdir(exist_ok=True)
        for old in layer.parent.glob(f"{name}-*.tar"):
            old.unlink(missing_ok=True)
        partial = Path(tempfile.mkstemp(prefix="making-", dir=layer.parent)[1])
        base.write_archive(root, partial)
        partial.replace(layer)
    return layer


def _derive(client: docker.DockerClient, recipe: str, layer: Path, tag: str) -> None:
    with tempfile.TemporaryFile() as context:
        with tarfile.open(fileobj=context, mode="w") as tar:
            head = tarfile.TarInfo("Dockerfile")
            head.size = len(recipe.encode())
            tar.addfile(head, io.BytesIO(recipe.encode()))
            tar.add(layer, arcname="layer.tar")
        context.seek(0)
        engine: Any = client.images  # its build calls have no types
        try:
            engine.build(
                fileobj=context, custom_context=True, tag=tag, rm=True, forcerm=True, pull=False, network_mode="none"
            )
        except BuildError as error:
            words = "".join(str(line.get("stream") or line.get("error") or "") for line in error.build_log)
            raise DockerException(f"{tag}: {words[-1000:]}") from error


def _node_image(
    client: docker.DockerClient, docker_host: str, kept: Path, say: Callable[[str], None], name: str
) -> str:
    del docker_host
    say(f"{name}: resolving packages")
    debs = packages.fetch(kept, NODE_ROOTS)
    locked = REQUIREMENTS / name
    tag = f"{_repository(name)}:{_version(name, '', [*sorted(locked.iterdir()), *debs])}"
    if base.has(client, tag):
        return tag
    say(f"{name}: fetching Node and packages from npm")
    fetched = node.fetch(locked, kept)
    with tempfile.TemporaryDirectory(prefix="awgp-agent-") as scratch:
        root = Path(scratch) / "root"
        layout.prepare(root)
        packages.unpack(debs, root)
        (Path(scratch) / "none").mkdir()
        layout.finish(root, Path(scratch) / "none", python=False)
        shutil.copy(fetched / "bin" / "node", root / "usr/bin/node")
        shutil.copytree(fetched / "node_modules", root / "opt/awgp/node_modules")
        _copy_scripts(name, root)
        base.write_archive(root, Path(scratch) / "image.tar")
        say(f"{name}: importing into the engine")
        settings = [line for line in base.SETTINGS if not line.startswith(("CMD", "ENV PYTHON"))]
        command = f'CMD ["node", "/{layout.AGENTS_FOLDER}/{name}/agent.mjs"]'
        base.import_archive(client, Path(scratch) / "image.tar", tag, [*settings, command])
    return tag


def _copy_scripts(name: str, root: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    shutil.copytree(SCRIPTS / name, root / layout.AGENTS_FOLDER / name, ignore=ignored)
    if name != NODE_AGENT:
        shutil.copy(SCRIPTS / _SHARED, root / layout.AGENTS_FOLDER / name)


def _version(name: str, from_tag: str, inputs: list[Path]) -> str:
    """Changes when the image's content would."""
    recipe = [Path(module.__file__ or "") for module in (layout, node, wheels)] + [Path(__file__)]
    scripts = sorted(path for path in (SCRIPTS / name).rglob("*") if path.is_file() and path.suffix != ".pyc")
    scripts.append(SCRIPTS / _SHARED)
    digest = hashlib.sha256(from_tag.encode())
    for path in [*recipe, *inputs, *scripts]:
        digest.update(f"{path.name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201


def main() -> int:
    """Runs the build from the command line."""
    parser = argparse.ArgumentParser(description="Build images of other people's agents without a registry.")
    parser.add_argument("--docker-host", default=os.environ.get("DOCKER_HOST", "unix:///run/docker.sock"))
    data = Path(os.environ.get("AWGP_DATA", Path(__file__).parents[2] / ".awgp"))
    parser.add_argument("--packages", type=Path, default=data / "packages", help="where packages are kept")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; none: all")
    arguments = parser.parse_args()
    problems = (packages.PackagesMissingError, wheels.WheelsMissingError, node.NodeMissingError, layout.LayoutError)
    try:
        for name in arguments.names or NAMES:
            tag = build_agent_image(arguments.docker_host, arguments.packages, _say, name)
            print(tag)  # noqa: T201
    except (*problems, DockerException) as problem:
        print(f"an agent's image could not be built: {problem}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
