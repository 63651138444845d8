"""Leaves traps in the output folder; what became of them is looked at outside."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from harness import WHERE

OUT = Path("/workspace/out")


def _naive(path: Path) -> bytes:
    """What a collector that follows everything would take: shows that the trap is live."""
    with path.open("rb") as file:
        return file.read(64)


def set_traps() -> str:
    """All that stand still."""
    OUT.mkdir(exist_ok=True)
    (OUT / "good.txt").write_text("good")
    (OUT / "link-to-a-file").symlink_to("/etc/passwd")
    (OUT / "link-to-the-host").symlink_to(WHERE["canary"])
    (OUT / "link-to-a-folder").symlink_to("/awgp/run")
    (OUT / "link-up").symlink_to("../..")
    (OUT / "link-to-itself").symlink_to("link-to-itself")
    (OUT / "link-to-memory").symlink_to("/proc/self/mem")
    (OUT / "folder").mkdir()
    (OUT / "folder" / "link-below").symlink_to("/awgp/run/guest.json")
    with contextlib.suppress(OSError):  # The list of calls has no way to make one.
        os.mkfifo(OUT / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(OUT / "socket"))
    (OUT / "setuid").write_text("#!/bin/sh\n")
    (OUT / "setuid").chmod(0o6777)
    (OUT / "line\nend").write_text("x")
    (OUT / "back\\slash").write_text("x")
    (OUT / "right\u202eleft").write_text("x")
    (OUT / "esc\x1b[2J").write_text("x")
    (OUT / ("a" * 255)).write_text("x")
    with open(os.fsencode(OUT) + b"/not-\xff-text", "wb") as file:
        file.write(b"x")
    (OUT / "-rf").write_text("x")
    (OUT / "...").write_text("x")
    os.truncate(os.open(OUT / "sparse", os.O_RDWR | os.O_CREAT), 60 << 20)
    links = ("link-to-a-file", "folder/link-below", "link-to-a-folder/guest.json")
    return "live: " + " ".join(name for name in links if _naive(OUT / name))


def hardlink_to_the_image() -> str:
    os.link("/etc/passwd", OUT / "hard")
    return "linked"


def swap_while_it_is_read() -> str:
    """A folder that is now a folder and now a link, and a child that goes on after the agent's end."""
    OUT.mkdir(exist_ok=True)
    (OUT / "real").mkdir()
    (OUT / "real" / "guest.json").write_text("mine")
    (OUT / "swap").symlink_to("real")
    subprocess.Popen([sys.executable, __file__, "swap"], start_new_session=True)
    time.sleep(0.5)
    return "swapping"


def _swap() -> None:
    os.chdir(OUT)
    while True:
        for target in ("/awgp/run", "real"):
            os.symlink(target, ".next")
            os.rename(".next", "swap")
        try:
            os.rename("swap", "parked")
            os.mkdir("swap")
            Path("swap/guest.json").write_text("mine")
            Path("swap/guest.json").unlink()
            os.rmdir("swap")
            os.rename("parked", "swap")
        except OSError:
            continue


def too_many() -> str:
    OUT.mkdir(exist_ok=True)
    for number in range(400):
        (OUT / f"{number:03}").write_text("x")
    return "400 files"


def too_large() -> str:
    OUT.mkdir(exist_ok=True)
    (OUT / "large").write_bytes(b"x" * (2 * int(WHERE["allowed"])))
    (OUT / "small").write_text("x")
    return "one file over the limit"


def over_together() -> str:
    """Each within the limit, all beyond it."""
    OUT.mkdir(exist_ok=True)
    for number in range(8):
        (OUT / str(number)).write_bytes(b"x" * (int(WHERE["allowed"]) // 3))
    return "eight thirds"


def folder_is_a_link() -> str:
    """The output folder itself."""
    os.rename(OUT, "/workspace/was-out")
    OUT.symlink_to("/awgp/run")
    return "the output folder leads elsewhere"


if __name__ == "__main__" and sys.argv[1:] == ["swap"]:
    _swap()
