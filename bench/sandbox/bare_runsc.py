"""``runsc run`` with no Docker above it: the floor of the floor."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from uuid import uuid4

from workers.stack.docker_engine import RUNSC_ARGUMENTS


class BareRunsc:
    """One bundle of the image, run again and again.

    Args:
        binary: Of gVisor.
        folder: For the bundle and its state.
    """

    def __init__(self, binary: str, folder: Path) -> None:
        self._binary = binary
        self._folder = folder

    def unpack(self, docker_host: str, image: str) -> None:
        """Brings the image's files to where a bundle has them."""
        rootfs = self._folder / "rootfs"
        rootfs.mkdir(parents=True)
        docker = ["docker", "-H", docker_host]
        made = subprocess.run([*docker, "create", image, "x"], capture_output=True, text=True, check=True, timeout=60)
        container = made.stdout.strip()
        with subprocess.Popen([*docker, "export", container], stdout=subprocess.PIPE) as export:
            subprocess.run(["tar", "-x", "-C", rootfs], stdin=export.stdout, check=True, timeout=120)
        subprocess.run([*docker, "rm", "-f", container], capture_output=True, check=True, timeout=60)
        config = {
            "ociVersion": "1.0.0",
            "process": {
                "args": ["echo", "x"], "cwd": "/", "user": {"uid": 65532, "gid": 65532}, "noNewPrivileges": True,
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "root": {"path": str(rootfs), "readonly": True},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": [{"type": name} for name in ("pid", "ipc", "uts", "mount", "network")]},
        }  # fmt: skip
        (self._folder / "config.json").write_text(json.dumps(config))

    async def first_byte(self) -> float:
        """Runs ``echo x`` and returns the milliseconds until its byte came."""
        wanted = [text for text in RUNSC_ARGUMENTS if not text.startswith("--panic-log")]
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            self._binary, f"--root={self._folder / 'state'}", *wanted,
            "run", "-bundle", str(self._folder), f"bench-{uuid4().hex}",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=os.environ,
        )  # fmt: skip
        assert process.stdout is not None
        await process.stdout.readexactly(1)
        taken = time.perf_counter() - began
        await process.wait()
        return taken * 1000

    def remove(self) -> None:
        """Removes the bundle."""
        shutil.rmtree(self._folder, ignore_errors=True)
