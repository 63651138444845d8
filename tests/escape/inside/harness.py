"""Runs named attacks inside a sandbox, each in a process of its own; prints one line of JSON an attack.

Standard library alone. An attack answers with words that prove its success, or raises ``OSError`` or ``Refused``;
anything else is a broken attack, which proves nothing and counts as a fault.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import platform
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
WHERE: dict[str, Any] = json.loads((FOLDER / "where.json").read_text()) if (FOLDER / "where.json").exists() else {}
SECONDS: float = WHERE.get("seconds", 8)
MACHINE = platform.machine()

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

# Name: number on x86-64, number on arm64.
_NUMBERS = {
    "add_key": (248, 217),
    "acct": (163, 89),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "capset": (126, 91),
    "chroot": (161, 51),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "fsopen": (430, 430),
    "init_module": (175, 105),
    "io_uring_setup": (425, 425),
    "ioperm": (173, -1),
    "iopl": (172, -1),
    "kcmp": (312, 272),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "memfd_secret": (447, 447),
    "modify_ldt": (154, -1),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_pages": (279, 239),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}


class Refused(Exception):  # noqa: N818 (what happened, not a mistake)
    """The attack did not work, and not by an error of the kernel."""


def call(name: str, *arguments: Any) -> int:
    """One system call; raises ``OSError`` with its error."""
    number = _NUMBERS[name][0 if MACHINE == "x86_64" else 1]
    if number < 0:
        raise OSError(errno.ENOSYS, f"{name}: not on this processor")
    ctypes.set_errno(0)
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    answer = libc.syscall(ctypes.c_long(number), *wide)
    if answer == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return answer


def reached(name: str, *arguments: Any) -> str:
    """Whether a call reaches code of the kernel at all: any answer but *not permitted* and *not there* says so.

    With arguments that no kernel accepts, so that nothing happens where it is reached.
    """
    try:
        return f"{name} answered {call(name, *arguments)}"
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS, errno.EACCES):
            raise
        return f"{name} was looked at: {errno.errorcode.get(error.errno or 0, error.errno)}"


def opened(path: str, flags: int) -> str:
    """Opens and closes; nothing is read or written."""
    os.close(os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC))
    return f"{path} was opened"


def _attack(name: str) -> dict[str, str]:
    module, _, function = name.partition(".")
    try:
        said = getattr(importlib.import_module(module), function)()
    except (OSError, Refused) as error:
        return {"state": "refused", "said": str(error) or type(error).__name__}
    except BaseException as error:
        return {"state": "broken", "said": repr(error)}
    return {"state": "won", "said": said} if said else {"state": "broken", "said": "it said nothing"}


def _alone(name: str) -> dict[str, str]:
    """The attack in a child; one that hangs is killed, one that kills the child is told."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.write(writing, json.dumps(_attack(name)).encode()[:60000])
        os._exit(0)
    os.close(writing)
    pieces: list[bytes] = []
    deadline = time.monotonic() + SECONDS
    while select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
        piece = os.read(reading, 65536)
        if not piece:
            break
        pieces.append(piece)
    os.close(reading)
    if not pieces:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if pieces:
        return json.loads(b"".join(pieces))
    if time.monotonic() >= deadline:
        return {"state": "refused", "said": f"nothing within {SECONDS} s"}
    return {"state": "broken", "said": f"its process ended: {status}"}


def main() -> None:
    """Each name of the command line, or of names.json."""
    names: list[str] = json.loads((FOLDER / "names.json").read_text())
    for name in names:
        importlib.import_module(name.partition(".")[0])  # Before an attack changes where files are.
    for name in names:
        print(json.dumps({"name": name} | _alone(name)), flush=True)


if __name__ == "__main__":
    sys.modules["harness"] = sys.modules["__main__"]
    main()
