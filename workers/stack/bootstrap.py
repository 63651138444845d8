"""Makes the virtual environment from the lock file, with the standard library alone.

Run as a file by the Makefile, before anything of ours is installed: `python3 -I workers/stack/bootstrap.py`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
VENV = CHECKOUT / ".venv"
LOCK = CHECKOUT / "requirements.lock"
STAMP = VENV / ".awgp-lock"


def say(text: str) -> None:
    """Print a progress line at once."""
    print(text, flush=True)


def stop(what: str, mend: str) -> None:
    """End with what is wrong and the command that mends it."""
    sys.exit(f"\nawgp set-up stopped: {what}\n  mend it with:  {mend}\n")


def fingerprint() -> str:
    """What the environment was made from: the lock, our own metadata, this Python."""
    digest = hashlib.sha256(sys.version.encode())
    for path in (LOCK, CHECKOUT / "pyproject.toml"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def have_venv_modules() -> bool:
    """Whether this Python can make an environment with pip in it (Debian ships that apart)."""
    return all(importlib.util.find_spec(name) is not None for name in ("venv", "ensurepip"))


def ensure_venv_modules() -> None:
    """Install python3-venv where this Python lacks it and we may."""
    if have_venv_modules():
        return
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    command = f"apt-get update && apt-get install -y --no-install-recommends {package}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        stop(f"this Python ({sys.executable}) cannot make virtual environments", f"sudo sh -c '{command}'")
    say(f"     installing {package} …")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
    importlib.invalidate_caches()
    if done.returncode != 0 or not have_venv_modules():
        stop(f"{package} could not be installed\n{done.stderr[-800:]}", command)


def run(command: list[str], mend: str) -> None:
    """Run a step; stop with the end of its output when it fails."""
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        stop(f"`{' '.join(command)}` failed\n{(done.stdout + done.stderr)[-2000:]}", mend)


def install_by_uv(python: str, pip: list[str]) -> bool:
    """Install the lock by the uv that it pins, in seconds; False where uv cannot (another index, say)."""
    block: list[str] = []
    for line in LOCK.read_text().splitlines():
        if line.startswith("uv==") or (block and line.startswith("    --hash")):
            block.append(line)
        elif block:
            break
    if not block:
        return False
    alone = VENV / "uv.lock"
    alone.write_text("\n".join(block).rstrip("\\ ") + "\n")
    for command in (
        [*pip, "--require-hashes", "-r", str(alone)],
        [str(VENV / "bin" / "uv"), "pip", "install", "-q", "--python", python, "--require-hashes", "-r", str(LOCK)],
    ):
        if subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=False).returncode != 0:
            return False
    return True


def make() -> None:
    """Make the environment, unless the present one came from this very lock."""
    if sys.version_info < (3, 11):  # noqa: UP036  (the one file that an older Python may meet)
        stop(f"Python 3.11 or newer is needed, {sys.executable} is older", "make PYTHON=python3.11 setup")
    wanted = fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    started = time.monotonic()
    say("  … Python environment from requirements.lock")
    ensure_venv_modules()
    again = f"rm -rf {VENV} && make setup"
    python = str(VENV / "bin" / "python")
    run([sys.executable, "-m", "venv", "--clear", str(VENV)], again)
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    if not install_by_uv(python, pip):
        run([*pip, "--require-hashes", "-r", str(LOCK)], again)
    # Built with what the lock brought, so that nothing unpinned is fetched.
    run([*pip, "--no-deps", "--no-build-isolation", "-e", str(CHECKOUT)], again)
    STAMP.write_text(wanted)
    say(f"  ok Python environment from requirements.lock ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    make()
