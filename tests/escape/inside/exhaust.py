"""Takes twice what is allowed, of one thing, and stops there: a control has ten times as much, never no limit."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from harness import WHERE, Refused, libc

_MIB = 1 << 20


def _goal() -> int:
    return 2 * int(WHERE["allowed"])


def fork_bomb() -> str:
    children: list[int] = []
    try:
        for _ in range(_goal()):
            child = os.fork()
            if child == 0:
                signal.pause()
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return f"{len(children)} processes"


def threads() -> str:
    release = threading.Event()
    made: list[threading.Thread] = []
    threading.stack_size(64 * 1024)
    try:
        for _ in range(_goal()):
            thread = threading.Thread(target=release.wait, daemon=True)
            thread.start()
            made.append(thread)
    except RuntimeError as error:
        raise Refused(f"{error} after {len(made)}") from error
    finally:
        release.set()
    return f"{len(made)} threads"


def open_files() -> str:
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(_goal())]
    return f"{len(opened)} open files"


def memory() -> str:
    kept = [bytearray(b"x") * (4 * _MIB) for _ in range(_goal() // (4 * _MIB))]
    return f"{len(kept) * 4} MiB"


def memory_as_the_last_choice() -> str:
    """Out of the way of the kernel's choice: what would be killed in its place?"""
    Path("/proc/self/oom_score_adj").write_text("-1000")
    return memory()


def memory_of_a_nameless_file() -> str:
    for number in range(_goal() // (16 * _MIB)):
        file = os.memfd_create(f"hoard-{number}")
        for _ in range(16):
            os.write(file, b"x" * _MIB)
    return f"{_goal() >> 20} MiB in a file without a name"


def memory_shared_by_key() -> str:
    """System V: it outlives its processes."""
    libc.shmat.restype = ctypes.c_void_p
    for _ in range(_goal() // (4 * _MIB)):
        segment = libc.shmget(0, 4 * _MIB, 0o600)
        if segment < 0:
            raise OSError(ctypes.get_errno(), "shmget")
        address = libc.shmat(segment, None, 0)
        ctypes.memset(address, 120, 4 * _MIB)
    return f"{_goal() >> 20} MiB of shared memory"


def memory_by_mapping() -> str:
    page = mmap.mmap(-1, _goal())
    for place in range(0, _goal(), 4096):
        page[place] = 1
    return f"{_goal() >> 20} MiB mapped and touched"


def memory_in_pipes() -> str:
    """Buffers that belong to no process."""
    filled = 0
    while filled < _goal():
        _, writing = os.pipe()
        fcntl.fcntl(writing, 1031, _MIB)  # F_SETPIPE_SZ
        os.set_blocking(writing, False)
        filled += os.write(writing, b"x" * _MIB)
    return f"{filled >> 20} MiB in pipes"


def memory_in_sockets() -> str:
    filled = 0
    while filled < _goal():
        first, second = socket.socketpair()
        first.setblocking(False)
        first.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MIB)
        filled += first.send(b"x" * _MIB)
        _KEPT.extend((first, second))
    return f"{filled >> 20} MiB in sockets"


_KEPT: list[socket.socket] = []


def _fill(path: str) -> str:
    with open(path, "wb", buffering=0) as file:
        file.writelines(b"x" * 65536 for _ in range(_goal() // 65536))
    return f"{_goal() >> 20} MiB in {path}"


def disk_of_workspace() -> str:
    return _fill("/workspace/hoard")


def disk_of_tmp() -> str:
    return _fill("/tmp/hoard")


def disk_of_shared_memory() -> str:
    return _fill("/dev/shm/hoard")


def disk_in_many_files() -> str:
    """A limit of a file's size says nothing of many."""
    for number in range(_goal() // 65536):
        Path(f"/workspace/hoard-{number}").write_bytes(b"x" * 65536)
    return f"{_goal() >> 20} MiB in many files"


def huge_sparse_file() -> str:
    os.truncate(os.open("/workspace/sparse", os.O_RDWR | os.O_CREAT), _goal())
    return f"a file of {_goal() >> 20} MiB without a byte"


def disk_beyond_memory() -> str:
    return _fill("/workspace/hoard")


def output_flood() -> str:
    for _ in range(_goal() // 65536):
        os.write(2, b"x" * 65535 + b"\n")
    return f"{_goal() >> 20} MiB of output"


def time_without_end() -> str:
    """Asked to go, it stays."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(_goal())
    return f"it ran for {_goal()} s"


def stop_the_guest() -> str:
    """A guest that is stopped takes no orders."""
    os.kill(1, signal.SIGSTOP)
    time.sleep(_goal())
    os.kill(1, signal.SIGCONT)
    return f"it ran for {_goal()} s beside a stopped guest"


def spin() -> str:
    until = time.monotonic() + 4
    children = [child for child in (os.fork() for _ in range(3)) if child]
    while time.monotonic() < until:
        pass
    if len(children) < 3:
        os._exit(0)
    return "it spun"


def kill_the_guest() -> str:
    os.kill(1, signal.SIGKILL)
    time.sleep(30)
    return "it outlived its guest"




def _main() -> None:
    """Some need a process of their own that is the agent itself: ``exhaust.py name``."""
    print(globals()[sys.argv[1]](), flush=True)


if __name__ == "__main__":
    _main()
