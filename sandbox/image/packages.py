"""Debian packages without installing them: resolved by apt against an empty system, unpacked by dpkg."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

ROOTS = ("python3", "busybox-static")
"""What the image is asked to hold; apt adds what these need to run."""

LEFT_OUT = frozenset({"dpkg", "tar", "libselinux1", "libpcre2-8-0", "libmd0", "libacl1", "libzstd1"})
"""Needed to install packages, not to run Python: the image is never installed into."""


# "Inst libc6 (2.36-9+deb12u14 Debian:12.15/oldstable [amd64])"
_INSTALLED = re.compile(r"Inst (?P<name>[^ :]+)\S* \((?P<version>\S+) .*\[(?P<arch>\w+)\]\)")


class PackagesMissingError(RuntimeError):
    """apt could not resolve or fetch the packages."""


def fetch(folder: Path, roots: tuple[str, ...] = ROOTS) -> list[Path]:
    """Downloads packages and their dependencies, verified by apt's own signatures.

    Args:
        folder: Where the packages are kept; what is there already is not fetched again.
        roots: What is asked for.

    Returns:
        The package files, sorted by name.

    Raises:
        PackagesMissingError: With apt's own words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / file for name, file in _resolve(folder, roots).items()}
    missing = [name for name, path in files.items() if not path.exists()]
    if missing:
        _run(["apt-get", "-q", *_as_own_user(), "download", *missing], cwd=folder)
    unfetched = sorted(name for name, path in files.items() if not path.exists())
    if unfetched:
        raise PackagesMissingError(f"apt fetched another version than it resolved: {', '.join(unfetched)}")
    return sorted(files.values())


def _resolve(folder: Path, roots: tuple[str, ...]) -> dict[str, str]:
    """What an empty system would install for these: package name → file name as apt downloads it."""
    status = folder / "empty-status"
    status.write_text("")
    # Against an empty system the answer does not depend on what this machine has installed.
    simulate = [
        "apt-get",
        "-q",
        "-o",
        f"Dir::State::status={status}",
        "-s",
        "--no-install-recommends",
        "install",
    ]
    files: dict[str, str] = {}
    for line in _run([*simulate, *roots]).splitlines():
        match = _INSTALLED.match(line)
        if match and match["name"] not in LEFT_OUT:
            version = match["version"].replace(":", "%3a")
            files[match["name"]] = f"{match['name']}_{version}_{match['arch']}.deb"
    return files


def unpack(packages: list[Path], root: Path) -> None:
    """Unpacks packages into ``root``; no maintainer script runs."""
    root.mkdir(parents=True, exist_ok=True)
    for package in packages:
        unpacked = root.parent / "package.tar"
        with unpacked.open("wb") as tar:
            subprocess.run(["dpkg-deb", "--fsys-tarfile", package], stdout=tar, timeout=120, check=True)
        # dpkg -x would replace the merged-/usr links by folders.
        _run(["tar", "-C", str(root), "-xf", str(unpacked), "--keep-directory-symlink", "--no-same-owner"])
        unpacked.unlink()


def _as_own_user() -> list[str]:
    # apt fetches as "_apt", which may not write into the caller's folder.
    return ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []


def _run(command: list[str], cwd: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise PackagesMissingError(f"{' '.join(command[:3])} …: {done.stderr.strip()[-2000:]}")
    return done.stdout
