"""What /proc and /sys show or take."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from harness import Refused, call, opened


def _fresh(kind: str) -> str:
    """A fresh /proc or /sys where it may be mounted: what the engine masks shows in it."""
    place = "/sys" if kind == "sysfs" else f"/{kind}"
    os.makedirs(f"/tmp{place}", exist_ok=True)
    try:
        call("mount", kind.encode(), f"/tmp{place}".encode(), kind.encode(), 0, None)
    except OSError:
        return place
    return f"/tmp{place}"


def kcore() -> str:
    return opened(_fresh("proc") + "/kcore", os.O_RDONLY)


def kernel_log() -> str:
    """Syslog(2), all of it: gVisor's own log is a few lines of nonsense."""
    buffer = ctypes.create_string_buffer(1 << 20)
    text = buffer.raw[: call("syslog", 3, buffer, len(buffer))]
    if not text or b"gVisor" in text:
        raise Refused(f"a log of {len(text)} bytes that is not the host's")
    return f"the host's kernel log: {len(text)} bytes"


def kernel_symbols() -> str:
    for line in Path("/proc/kallsyms").read_text().splitlines()[:50]:
        if int(line.split()[0], 16):
            return f"an address of the host's kernel: {line[:40]}"
    raise Refused("no addresses")


def sysrq() -> str:
    return opened(_fresh("proc") + "/sysrq-trigger", os.O_WRONLY)


def _same_again(path: str) -> str:
    """Writes what is there already: nothing changes where it is taken."""
    now = Path(path).read_bytes()
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, now or b"\n")
    os.close(descriptor)
    return f"{path} was written"


def core_pattern() -> str:
    return _same_again(_fresh("proc") + "/sys/kernel/core_pattern")


def modprobe_path() -> str:
    return _same_again(_fresh("proc") + "/sys/kernel/modprobe")


def hotplug_helper() -> str:
    return _same_again("/sys/kernel/uevent_helper")


def panic_setting() -> str:
    return _same_again(_fresh("proc") + "/sys/kernel/panic")


def memory_overcommit() -> str:
    return _same_again(_fresh("proc") + "/sys/vm/overcommit_memory")


def binary_formats() -> str:
    """A handler registered here runs on the host for every user."""
    os.makedirs("/tmp/binfmt", exist_ok=True)
    call("mount", b"none", b"/tmp/binfmt", b"binfmt_misc", 0, None)
    found = opened("/tmp/binfmt/register", os.O_WRONLY)
    call("umount2", b"/tmp/binfmt", 0)
    return found


def memory_limit() -> str:
    """Its own cgroup's limit, by whichever of the two layouts shows."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            return _same_again(f"/sys/fs/cgroup{path.rstrip('/')}/memory.max")
        if controllers == "memory":
            return _same_again(f"/sys/fs/cgroup/memory{path.rstrip('/')}/memory.limit_in_bytes")
    raise Refused("no cgroup shows")


def release_agent() -> str:
    """A cgroup v1 hierarchy of its own, whose release agent would run on the host."""
    os.makedirs("/tmp/cgroup", exist_ok=True)
    call("mount", b"cgroup", b"/tmp/cgroup", b"cgroup", 0, b"memory")
    path = "/tmp/cgroup/release_agent"
    if not os.path.exists(path):
        # A cgroup namespace hides it; what is seen is the mount.
        raise Refused("mounted, without a release agent")
    found = opened(path, os.O_WRONLY)
    call("umount2", b"/tmp/cgroup", 0)
    return found


def debug_and_trace() -> str:
    os.makedirs("/tmp/debug", exist_ok=True)
    call("mount", b"none", b"/tmp/debug", b"debugfs", 0, None)
    found = os.listdir("/tmp/debug")
    call("umount2", b"/tmp/debug", 0)
    return f"the kernel's debug files: {len(found)}"


def firmware() -> str:
    names = [f"{_fresh('sysfs')}/firmware/{name}" for name in ("acpi", "dmi", "memmap")]
    shown = [name for name in names if os.path.isdir(name) and os.listdir(name)]
    if not shown:
        raise Refused("no firmware shows")
    return f"the host's firmware: {shown}"


def block_devices() -> str:
    names = [path.name for path in Path("/sys/block").iterdir()]
    if not names:
        raise Refused("no block device shows")
    return f"the host's disks: {names[:4]}"


def mounts_of_the_host() -> str:
    """Paths of the host's file systems, as /proc/self/mountinfo tells them."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if "/awgp/run" in line and "mounts" in line:
            return f"the host's path shows: {line[:120]}"
    raise Refused("no path of the host shows")


def processes_of_the_host() -> str:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and b"dockerd" in (process / "cmdline").read_bytes():
            found.append(process.name)
    if not found:
        raise Refused("no process of the host shows")
    return f"the engine is process {found[0]}"
