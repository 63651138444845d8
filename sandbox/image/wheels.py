"""Python packages for an image, as wheels: fetched by pip for the Python of the image, and never built here."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_GLIBCS = ("2_17", "2_28", "2_34")
"""Wheels for one of these run on Debian 12 and later."""
_SECONDS = 600


class WheelsMissingError(RuntimeError):
    """pip could not fetch or install the wheels."""


def fetch(requirements: Path, python: str, kept: Path) -> Path:
    """Returns a folder with the wheels of a locked requirements file; what was fetched once is not fetched again.

    Args:
        requirements: With hashes, every package in it.
        python: The image's version, for instance ``3.11``.
        kept: Where such folders are kept.

    Raises:
        WheelsMissingError: With pip's own words.
    """
    key = hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    folder = kept / "wheels" / f"{requirements.stem}-{python}-{key}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    fetched = Path(tempfile.mkdtemp(prefix="fetching-", dir=folder.parent))
    try:
        _pip("download", "-d", str(fetched), *_for_image(requirements, python))
        finish(fetched, folder)
    finally:
        shutil.rmtree(fetched, ignore_errors=True)
    return folder


def install(requirements: Path, wheels: Path, python: str, target: Path) -> None:
    """Unpacks wheels into a folder of modules, each verified again; commands of theirs are left out.

    Raises:
        WheelsMissingError: With pip's own words.
    """
    _pip(
        "install", "--target", str(target), "--no-compile", "--no-index", "--find-links", str(wheels),
        *_for_image(requirements, python),
    )  # fmt: skip
    # Their first line names our Python.
    shutil.rmtree(target / "bin", ignore_errors=True)


def _for_image(requirements: Path, python: str) -> list[str]:
    machine = platform.machine()
    platforms = [word for glibc in _GLIBCS for word in ("--platform", f"manylinux_{glibc}_{machine}")]
    return [
        "-r", str(requirements), "--require-hashes", "--no-deps", "--only-binary", ":all:",
        "--python-version", python, "--implementation", "cp",
        *platforms, "--platform", f"manylinux2014_{machine}",
    ]  # fmt: skip


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode != 0:
        raise WheelsMissingError(f"pip {arguments[0]} …: {done.stderr.strip()[-2000:]}")


def finish(made: Path, folder: Path) -> None:
    """Gives a folder its name, unless another process was quicker."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.exists():
            raise
