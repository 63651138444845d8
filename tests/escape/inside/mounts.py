"""Mounts, roots and namespaces."""

from __future__ import annotations

import contextlib
import ctypes
import os

from harness import Refused, call

_NEW_USER, _NEW_MOUNTS, _NEW_NET, _NEW_PIDS = 0x10000000, 0x00020000, 0x40000000, 0x20000000


def _aside() -> None:
    """Where it may, in mounts of its own, so that the next attack finds what this one found."""
    with contextlib.suppress(OSError):
        call("unshare", _NEW_MOUNTS)


def mount_tmpfs() -> str:
    _aside()
    call("mount", b"none", b"/tmp", b"tmpfs", 0, None)
    return "a file system was mounted"


def mount_proc() -> str:
    """A fresh one, without what Docker masks."""
    os.mkdir("/tmp/proc")
    call("mount", b"proc", b"/tmp/proc", b"proc", 0, None)
    return "a fresh /proc was mounted"


def bind_over_the_guest() -> str:
    _aside()
    call("mount", b"/etc/passwd", b"/awgp/guest", None, 4096, None)
    return "the guest was hidden"


def bind_remount_writable() -> str:
    _aside()
    call("mount", b"none", b"/awgp/run", None, 4096 | 32, None)
    return "the run's folder is writable"


def remount_root_writable() -> str:
    _aside()
    call("mount", b"none", b"/", None, 32, None)
    return "the image is writable"


def overlay() -> str:
    for name in ("up", "work", "all"):
        os.mkdir(f"/tmp/{name}")
    call("mount", b"overlay", b"/tmp/all", b"overlay", 0, b"lowerdir=/etc,upperdir=/tmp/up,workdir=/tmp/work")
    return "an overlay was mounted"


def unmount_the_run() -> str:
    _aside()
    call("umount2", b"/awgp/in", 2)
    return "a mount was taken away"


def new_mount_interface() -> str:
    """Fsopen and its family came later than most lists of calls."""
    return f"fsopen answered {call('fsopen', b'tmpfs', 0)}"


def clone_a_tree() -> str:
    return f"open_tree answered {call('open_tree', -100, b'/awgp', 1)}"


def mount_attributes() -> str:
    _aside()
    attributes = ctypes.create_string_buffer(32)
    call("mount_setattr", -100, b"/awgp/in", 0, attributes, 32)
    return "a mount's attributes can be set"


def pivot_root() -> str:
    _aside()
    call("mount", b"none", b"/tmp", b"tmpfs", 0, None)
    os.mkdir("/tmp/old")
    call("pivot_root", b"/tmp", b"/tmp/old")
    return "it has another root"


def chroot() -> str:
    """The old way out of a chroot begins with a new one."""
    call("chroot", b"/tmp")
    return "it has another root"


def _unshare(flags: int, what: str) -> str:
    call("unshare", flags)
    return f"{what} of its own"


def new_user_namespace() -> str:
    return _unshare(_NEW_USER, "users")


def new_mount_namespace() -> str:
    return _unshare(_NEW_MOUNTS, "mounts")


def new_network_namespace() -> str:
    return _unshare(_NEW_NET, "a network")


def new_pid_namespace() -> str:
    return _unshare(_NEW_PIDS, "processes")


def user_namespace_by_clone() -> str:
    child = call("clone", _NEW_USER | 17, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "a child with users of its own"


def _clone3(flags: int) -> int:
    """As fork, in new namespaces; the filter cannot look at flags that stand in memory."""
    arguments = (ctypes.c_ulonglong * 8)(flags, 0, 0, 0, 17, 0, 0, 0)
    return call("clone3", arguments, 64)


def mount_in_namespaces_by_clone3() -> str:
    """Root in a user namespace of its own: what does it take there?"""
    reading, writing = os.pipe()
    child = _clone3(_NEW_USER | _NEW_MOUNTS)
    if child == 0:
        try:
            call("mount", b"none", b"/tmp", b"tmpfs", 0, None)
            os.write(writing, b"won")
        except OSError as error:
            os.write(writing, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    answer = os.read(reading, 200).decode()
    if answer != "won":
        raise Refused(f"in namespaces of its own: {answer}")
    return "mounted in namespaces of its own"


def join_the_hosts_mounts() -> str:
    descriptor = os.open("/proc/1/ns/mnt", os.O_RDONLY)
    call("setns", descriptor, _NEW_MOUNTS)
    return "joined the mounts of PID 1"


def rename_the_host() -> str:
    call("sethostname", b"sandbox", 7)
    return "the host name was set"
