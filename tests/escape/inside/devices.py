"""Devices that are there, and ones that can be made."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

from harness import WHERE, Refused, call, opened


def _node(kind: int, major: int, minor: int) -> str:
    last = OSError("no folder")
    for folder in ("/workspace", "/tmp", "/dev/shm", "/dev"):
        path = f"{folder}/node-{major}-{minor}"
        try:
            os.mknod(path, kind | 0o666, os.makedev(major, minor))
            try:
                return opened(path, os.O_RDONLY)
            finally:
                os.unlink(path)
        except OSError as error:
            last = error
    raise last


def make_the_hosts_disk() -> str:
    """The block device that holds the host's root."""
    return _node(stat.S_IFBLK, *WHERE["disk"])


def make_memory() -> str:
    return _node(stat.S_IFCHR, 1, 11)  # kmsg: mem, its neighbour, is not in every kernel


def open_memory() -> str:
    return opened("/dev/mem", os.O_RDONLY)


def open_kvm() -> str:
    return opened("/dev/kvm", os.O_RDWR)


def make_a_tunnel() -> str:
    """Anybody may open gVisor's own device; an interface is what it would be good for."""
    import fcntl

    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", b"awgp0", 0x1002))  # TUNSETIFF: a tap
    return "it has an interface of its own"


def serve_a_file_system() -> str:
    """Likewise: a file system whose answers the agent makes up is what it would be good for."""
    device = os.open("/dev/fuse", os.O_RDWR)
    os.mkdir("/tmp/fuse")
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    call("mount", b"fuse", b"/tmp/fuse", b"fuse", 0, options)
    return "a file system of its own was mounted"


def open_loop_control() -> str:
    return opened("/dev/loop-control", os.O_RDWR)


def open_kernel_log() -> str:
    return opened("/dev/kmsg", os.O_RDONLY)


def open_disk() -> str:
    names = [path for path in Path("/dev").iterdir() if path.is_block_device()]
    if not names:
        raise Refused("no block device in /dev")
    return opened(str(names[0]), os.O_RDONLY)


def open_vsock() -> str:
    return opened("/dev/vsock", os.O_RDONLY)


def type_into_a_terminal() -> str:
    """TIOCSTI: a character pushed into the terminal of whoever started this."""
    import fcntl

    fcntl.ioctl(os.open("/dev/tty", os.O_RDWR), 0x5412, b"\n")
    return "a character was typed"
