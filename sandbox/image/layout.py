"""What the image holds besides packages: users, folders, busybox's commands, agents, compiled modules."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

AGENT_UID = 65532
AGENTS_FOLDER = "opt/awgp/agents"

PASSWD = f"""\
root:x:0:0:root:/:/bin/sh
agent:x:{AGENT_UID}:{AGENT_UID}:agent:/workspace:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
"""
GROUP = f"""\
root:x:0:
agent:x:{AGENT_UID}:
nogroup:x:65534:
"""
# No network, no name service: names come from files, and there are none.
FILES = {
    "etc/passwd": PASSWD,
    "etc/group": GROUP,
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "etc/hosts": "127.0.0.1 localhost\n",
}
FOLDERS = {"tmp": 0o1777, "var/tmp": 0o1777, "run": 0o755, "workspace": 0o755, "awgp": 0o755}
# Documentation and locales are a third of the size; test suites are never run in a sandbox.
UNWANTED = tuple(
    f"usr/share/{name}" for name in ("doc", "man", "info", "lintian", "locale", "bug", "pixmaps", "applications")
)


class LayoutError(RuntimeError):
    """The unpacked packages do not hold what the image needs."""


def prepare(root: Path) -> None:
    """Makes the merged-/usr links that Debian's base-files would bring, before packages are unpacked."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")


def finish(root: Path, agents: Path, *, python: bool = True) -> None:
    """Turns unpacked packages into the image's root folder.

    Args:
        root: The folder the packages were unpacked into.
        agents: Folder of agents; copied to /opt/awgp/agents.
        python: Whether there is one, whose modules and agents are compiled.
    """
    for name in UNWANTED:
        shutil.rmtree(root / name, ignore_errors=True)
    for name, mode in FOLDERS.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(mode)
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    _link_busybox(root)
    _strip_setuid(root)
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    shutil.copytree(agents, root / AGENTS_FOLDER, ignore=ignored)
    if python:
        compile_modules(root, [*(root / "usr/lib").glob("python3.*"), root / AGENTS_FOLDER], root)


def _link_busybox(root: Path) -> None:
    busybox = root / "usr/bin/busybox"
    if not busybox.exists():
        raise LayoutError("busybox-static brought no busybox")
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, timeout=30, check=True)
    for applet in listed.stdout.split():
        link = root / "usr/bin" / applet
        if not link.exists() and not link.is_symlink():
            link.symlink_to("busybox")


def _strip_setuid(root: Path) -> None:
    """Nothing in the image may raise its rights; no-new-privileges says the same at run time."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o6000:
            path.chmod(path.stat().st_mode & 0o1777)


def compile_modules(system: Path, folders: list[Path], root: Path) -> None:
    """Ships .pyc: without them seven imports cost four times as much in gVisor.

    The image's own Python compiles, by its own loader, so that neither root nor the same version outside is
    needed. Unchecked hashes: the modules never change, so nothing is compared at import.

    Args:
        system: Root folder of unpacked packages, with Python.
        folders: What is compiled.
        root: What is the image's root folder in the names of these.
    """
    loaders = sorted((system / "usr/lib64").glob("ld-linux*")) or sorted((system / "usr/lib").glob("ld-linux*"))
    pythons = sorted((system / "usr/bin").glob("python3.*[0-9]"))
    if not loaders or not pythons:
        raise LayoutError("the packages brought no loader or no Python")
    libraries = ":".join(str(path) for path in sorted((system / "usr/lib").glob("*-linux-gnu*")))
    python = [loaders[0], "--library-path", libraries, pythons[-1], "-S", "-s"]
    options = ["-q", "-q", "--invalidation-mode", "unchecked-hash", "-s", root, "-p", "/"]
    command = [*python, "-m", "compileall", *options, *folders]
    environment = {"PYTHONHOME": str(system / "usr"), "LC_ALL": "C.UTF-8", "PATH": os.environ.get("PATH", "")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise LayoutError(f"compileall: {(done.stdout + done.stderr).strip()[-2000:]}")
