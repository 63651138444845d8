"""More rights than it was given."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
from pathlib import Path

from harness import Refused, call, libc


def become_root() -> str:
    os.setuid(0)
    return f"it is user {os.getuid()}"


def become_root_group() -> str:
    os.setgid(0)
    return f"its group is {os.getgid()}"


def join_groups() -> str:
    os.setgroups([0, 6])
    return f"its groups are {os.getgroups()}"




def take_capabilities() -> str:
    head = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0), 8)
    one = 1 << 21  # SYS_ADMIN
    data = ctypes.create_string_buffer(struct.pack("IIIIII", one, one, 0, 0, 0, 0), 24)
    call("capset", head, data)
    return "it may administer"


def setuid_program() -> str:
    """A program of root's with the bit, on a mount that does not forbid it."""
    script = "import os; print(os.geteuid())"
    program = str(Path(__file__).with_name("setuid-python"))
    said = subprocess.run([program, "-I", "-c", script], capture_output=True, text=True, check=False, timeout=6).stdout
    if said.strip() != "0":
        raise Refused(f"it ran as {said.strip()}")
    return "it ran as root"


def file_capability() -> str:
    """Every capability, written on a file of its own."""
    Path("/workspace/capable").write_text("")
    os.setxattr("/workspace/capable", "security.capability", struct.pack("<IIIII", 0x02000001, 0xFFFFFFFF, 0, 0, 0))
    return "a file of its own carries capabilities"


def give_away_a_setuid_file() -> str:
    """A file of its own that would belong to root."""
    Path("/workspace/gift").write_text("")
    os.chown("/workspace/gift", 0, 0)
    Path("/workspace/gift").chmod(0o4755)
    return "a setuid file of root's"


def undo_no_new_privileges() -> str:
    if libc.prctl(38, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    return "new privileges are possible again"


def undo_seccomp() -> str:
    """Switches the filter off, by the only call that names it."""
    if libc.prctl(22, 0, None, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    return "the filter is off"


def raise_open_files() -> str:
    """A hard limit can only be lowered."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard + 1))
    except ValueError as error:
        raise Refused(str(error)) from error
    return "the limit of open files was raised"
