"""Other processes: above all the guest, which is PID 1 and runs as the same user."""

from __future__ import annotations

import ctypes
import os
import signal

from harness import Refused, call, libc


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _text_of_the_guest() -> int:
    """An address inside its program: a static Go binary stands where its header says."""
    with open("/awgp/guest", "rb") as file:
        return int.from_bytes(file.read(32)[24:32], "little")


def trace_the_guest() -> str:
    call("ptrace", 16, 1, 0, 0)  # ATTACH
    os.waitpid(1, 0x40000000)
    call("ptrace", 17, 1, 0, 0)
    return "the guest was traced"


def seize_the_guest() -> str:
    call("ptrace", 0x4206, 1, 0, 0)
    return "the guest was seized"


def trace_a_child() -> str:
    """Not an escape by itself: the whole of ptrace is a large part of any kernel."""
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        call("ptrace", 16, child, 0, 0)
        return "a process was traced"
    finally:
        os.kill(child, signal.SIGKILL)


def _vectors() -> tuple[ctypes.Array[ctypes.c_char], _Vector, _Vector]:
    buffer = ctypes.create_string_buffer(8)
    mine = _Vector(ctypes.cast(buffer, ctypes.c_void_p), 8)
    return buffer, mine, _Vector(_text_of_the_guest(), 8)


def read_the_guests_memory() -> str:
    buffer, mine, theirs = _vectors()
    call("process_vm_readv", 1, ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0)
    return f"read {buffer.raw.hex()} of the guest"


def write_the_guests_memory() -> str:
    """Into its program text, which takes no writing: *faulted* says that the way was open."""
    _, mine, theirs = _vectors()
    try:
        call("process_vm_writev", 1, ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0)
    except OSError as error:
        if error.errno != 14:
            raise
    return "the guest's memory was addressed"


def guest_memory_by_proc() -> str:
    with open("/proc/1/mem", "rb", buffering=0) as memory:
        memory.seek(_text_of_the_guest())
        return f"read {memory.read(8).hex()} of the guest"


def descriptors_of_the_guest() -> str:
    """Its connection to the host, by /proc."""
    for name in os.listdir("/proc/1/fd"):
        return f"descriptor {name} is {os.readlink('/proc/1/fd/' + name)}"
    raise Refused("it shows none")


def take_the_guests_descriptor() -> str:
    guest = call("pidfd_open", 1, 0)
    return f"its descriptor 3 is ours as {call('pidfd_getfd', guest, 3, 0)}"


def compare_with_the_guest() -> str:
    return f"kcmp answered {call('kcmp', 1, os.getpid(), 0, 0, 0)}"


def move_the_guests_pages() -> str:
    call("move_pages", 1, 0, None, None, None, 0)
    return "the guest's pages were looked at"


def limit_the_guest() -> str:
    """Its open files down to nothing: prlimit on another process."""
    now = (ctypes.c_ulong * 2)()
    if libc.prlimit64(1, 7, None, ctypes.byref(now)) != 0:
        raise OSError(ctypes.get_errno(), "prlimit")
    if libc.prlimit64(1, 7, ctypes.byref(now), None) != 0:
        raise OSError(ctypes.get_errno(), "prlimit")
    return "the guest's limits can be set"


def signal_the_host() -> str:
    """A process of the host's: nothing is sent, only asked whether it could be."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with open(f"/proc/{name}/cmdline", "rb") as file:
                found = b"dockerd" in file.read()
            if found:
                os.kill(int(name), 0)
                return f"process {name} of the host can be signalled"
    raise Refused("no process of the host")
