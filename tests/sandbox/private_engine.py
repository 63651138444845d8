"""A Docker engine of the tests' own, with gVisor, under a folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from workers.stack.docker_engine import RUNSC_ARGUMENTS, RUNTIME

REPOSITORY = Path(__file__).parents[2]
DATA = Path(os.environ.get("AWGP_DATA", REPOSITORY / ".awgp")).resolve()
CACHE = Path(os.environ.get("AWGP_CACHE") or DATA / "cache")
GUEST = CACHE / "bin" / "awgp-guest"
PACKAGES = CACHE / "packages"
"""All three as the set-up leaves them."""


def missing() -> str | None:
    """What the machine lacks for these tests; None when nothing."""
    if shutil.which("dockerd") is None:
        return "no dockerd here: apt-get install -y --no-install-recommends docker.io"
    if runsc() is None:
        return f"no gVisor in {CACHE / 'bin'} nor on PATH: make setup, or set AWGP_CACHE"
    if not GUEST.exists():
        return f"no {GUEST}: make setup, or set AWGP_CACHE"
    return None


def runsc() -> str | None:
    """The one that the set-up built, else the machine's own."""
    return shutil.which("runsc", path=str(CACHE / "bin")) or shutil.which("runsc")


class PrivateEngine:
    """One dockerd; ``crash`` is kill -9, and its containers live on."""

    def __init__(self) -> None:
        # Short, since sockets under it have addresses of 108 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="awgp-e-"))
        self.socket = self.folder / "docker.sock"
        self.host = f"unix://{self.socket}"
        self.containerd = self.folder / "exec" / "containerd" / "containerd.sock"
        self.command_prefix: tuple[str, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None
        self._write_config()

    def runtimes(self) -> dict[str, Any]:
        return {RUNTIME: {"path": runsc(), "runtimeArgs": list(RUNSC_ARGUMENTS)}}

    def _write_config(self) -> None:
        config = {"live-restore": True, "runtimes": self.runtimes()}
        (self.folder / "daemon.json").write_text(json.dumps(config))

    def start(self) -> None:
        (self.folder / "docker.pid").unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self.command_prefix, "dockerd",
                    "--data-root", self.folder / "data", "--exec-root", self.folder / "exec",
                    "-H", self.host, "--pidfile", self.folder / "docker.pid",
                    "--config-file", self.folder / "daemon.json",
                    "--bridge=none", "--iptables=false", "--ip6tables=false",
                ],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.await_ready()

    def await_ready(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            answer = subprocess.run(["docker", "-H", self.host, "version"], capture_output=True, check=False)
            if answer.returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def crash(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._await_containerd_death()

    def crash_containerd(self) -> None:
        """Kill -9 of it alone; dockerd starts another."""
        os.kill(int((self.folder / "exec" / "containerd" / "containerd.pid").read_text()), signal.SIGKILL)

    def sandboxes(self) -> list[int]:
        """Processes of gVisor under this engine, also those that it has forgotten."""
        root = b"--root=" + os.fsencode(self.folder / "exec") + b"/"
        found: list[int] = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if any(word.startswith(root) for word in path.read_bytes().split(b"\0")):
                    found.append(int(path.parent.name))
        return found

    def _await_containerd_death(self) -> None:
        """It dies with dockerd. Left a zombie, it looks alive to the next dockerd, which then waits in vain."""
        record = self.folder / "exec" / "containerd" / "containerd.pid"
        number = record.read_text().strip()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                state = "gone"
            if state in ("Z", "X", "gone"):
                record.unlink()
                return
            time.sleep(0.05)

    def stop(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            # Crashed by a test that failed: its containers can only be ended by another one.
            with contextlib.suppress(AssertionError):
                self.start()
        containers = subprocess.run(
            ["docker", "-H", self.host, "ps", "-aq"], capture_output=True, text=True, check=False
        ).stdout.split()
        if containers:
            subprocess.run(["docker", "-H", self.host, "rm", "-f", *containers], capture_output=True, check=False)
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        self._end_containerd()
        self._unmount()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _unmount(self) -> None:
        """Dockerd mounts its data folder on itself, and leaves that."""
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for place in reversed(mounted):
            if place.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "-l", place], capture_output=True, check=False)

    def _end_containerd(self) -> None:
        """One that outlived a crashed dockerd is not its child any more."""
        with contextlib.suppress(OSError, ValueError):
            number = int((self.folder / "exec" / "containerd" / "containerd.pid").read_text())
            command = Path(f"/proc/{number}/cmdline").read_bytes()
            if str(self.folder).encode() in command:
                os.kill(number, signal.SIGTERM)
