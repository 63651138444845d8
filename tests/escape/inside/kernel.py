"""Large and often broken parts of a kernel that an agent never needs."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os

from harness import MACHINE, Refused, call, reached


def keyrings() -> str:
    return f"keyctl answered {call('keyctl', 0, -3, 1)}"


def add_a_key() -> str:
    return f"a key: {call('add_key', b'user', b'awgp', b'x', 1, -2)}"


def bpf() -> str:
    return reached("bpf", 0, 0, 0)


def io_uring() -> str:
    return f"a ring: {call('io_uring_setup', 4, ctypes.create_string_buffer(256))}"


def userfaultfd() -> str:
    return f"a descriptor: {call('userfaultfd', 0)}"


def perf_events() -> str:
    return reached("perf_event_open", 0, 0, -1, -1, 0)


def load_a_module() -> str:
    return reached("init_module", 0, 0, 0)


def remove_a_module() -> str:
    return reached("delete_module", 0, 0)


def another_kernel() -> str:
    return reached("kexec_load", 0, 1000, 0, 1)


def reboot() -> str:
    return reached("reboot", 1, 2, 3, 0)  # No kernel knows these magic numbers.


def set_the_clock() -> str:
    return reached("clock_settime", 0, (ctypes.c_long * 2)(0, 2_000_000_000))  # Seconds do not have that many parts.


def adjust_the_clock() -> str:
    mode = ctypes.create_string_buffer(b"\xff\x7f\0\0", 208)
    return reached("adjtimex", mode)


def swap() -> str:
    return reached("swapon", b"/nowhere", 0)


def quotas() -> str:
    return reached("quotactl", 0x80000100, 0, 0, 0)


def accounting() -> str:
    return reached("acct", b"/nowhere")


def watch_all_files() -> str:
    return f"fanotify answered {call('fanotify_init', 0, 0)}"


def secret_memory() -> str:
    return f"memfd_secret answered {call('memfd_secret', 0)}"


def name_a_handle() -> str:
    handle = ctypes.create_string_buffer((128).to_bytes(4, "little") + bytes(132), 136)
    mount = ctypes.c_int()
    call("name_to_handle_at", -100, b"/awgp/run", handle, ctypes.byref(mount), 0)
    return "a handle of the run's folder"


def io_ports() -> str:
    return f"iopl answered {call('iopl', 0) if MACHINE == 'x86_64' else call('acct', 0)}"


def some_io_ports() -> str:
    call("ioperm", 0x80, 1, 1)
    return "a port of the machine is its own"


def local_descriptors() -> str:
    return f"modify_ldt answered {call('modify_ldt', 0, ctypes.create_string_buffer(16), 16)}"


def hang_up_the_terminal() -> str:
    call("vhangup")
    return "a terminal was hung up"


def old_32_bit_calls() -> str:
    """``int 0x80``: another table of calls, which a list for the 64-bit one does not cover.

    Number 26 there is ptrace (TRACEME), which the list refuses.
    """
    if MACHINE != "x86_64":
        raise Refused("no such table on this processor")
    # push rbx; mov eax, 26; xor ebx, ecx, edx, esi; int 0x80; pop rbx; ret
    code = b"\x53\xb8\x1a\x00\x00\x00\x31\xdb\x31\xc9\x31\xd2\x31\xf6\xcd\x80\x5b\xc3"
    child = os.fork()
    if child == 0:
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        start = ctypes.addressof(ctypes.c_char.from_buffer(page))
        answer = ctypes.CFUNCTYPE(ctypes.c_int)(start)()
        os._exit(min(-answer, 120) if answer < 0 else 121)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise Refused(f"the process was killed by signal {os.WTERMSIG(status)}")
    if os.WEXITSTATUS(status) != 121:
        code_ = os.WEXITSTATUS(status)
        raise OSError(code_, f"int 0x80: {errno.errorcode.get(code_, code_)}")
    return "a call of the old table went through"


def x32_calls() -> str:
    """The third table of x86-64: number 521 with its mark is ptrace."""
    if MACHINE != "x86_64":
        raise Refused("no such table on this processor")
    from harness import libc

    ctypes.set_errno(0)
    if libc.syscall(ctypes.c_long(0x40000000 | 521), 0, 0, 0, 0) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "a call of the third table went through"


def whose_kernel() -> str:
    """A name of the host's kernel: the one that everything else here would attack."""
    release, version = os.uname().release, os.uname().version
    from harness import WHERE

    if (release, version) != tuple(WHERE["kernel"]):
        raise Refused(f"another kernel: {release}")
    return f"it runs on the host's own kernel {release}"
