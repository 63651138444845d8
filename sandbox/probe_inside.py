"""Runs inside the probe container (never imported): prints each check, with why it did not hold.

Standard library alone, and no module of ours: its text is all that reaches the sandbox.
"""

import ctypes
import errno
import json
import os
import resource
import socket
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)


def is_gvisor() -> str:
    """GVisor's kernel names itself; a real one has a build host in brackets."""
    version = Path("/proc/version").read_text()
    return "" if "gvisor" in version.lower() or "#1 SMP Sun Jan 10 15:06:54 PST 2016" in version else version


def refused(name: str, *arguments: int) -> str:
    """A call that only seccomp refuses here: gVisor itself would serve it."""
    answer = getattr(libc, name)(*arguments)
    return "" if answer == -1 and ctypes.get_errno() == errno.EPERM else f"{name} answered {answer}"


def raw_socket_refused() -> str:
    """Family 17 (packet) is not on the list."""
    try:
        socket.socket(17, socket.SOCK_RAW).close()
    except PermissionError:
        return ""
    except OSError as error:
        return str(error)
    return "a packet socket was opened"


def unreachable(family: int, address: str) -> str:
    """No route to anywhere."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(3)
        code = probe.connect_ex((address, 80))
    return "" if code in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL) else os.strerror(code)


def only_loopback() -> str:
    """No interface but lo."""
    names = sorted(name for _, name in socket.if_nameindex())
    return "" if names in ([], ["lo"]) else ", ".join(names)


def status(field: str, wanted: str) -> str:
    """One line of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return "" if value.strip() == wanted else value.strip()
    return "not shown"


def root_read_only() -> str:
    """Nothing of the image can be changed."""
    try:
        Path("/etc/awgp-probe").write_text("x")
    except OSError as error:
        return "" if error.errno in (errno.EROFS, errno.EACCES) and not writable_root() else str(error)
    return "the image could be written"


def writable_root() -> bool:
    """Permission alone is no fence: the mount itself has to be read-only."""
    return not os.statvfs("/").f_flag & os.ST_RDONLY


def disk_full() -> str:
    """The workspace ends where it should (2 MiB)."""
    try:
        with Path("/workspace/fill").open("wb") as file:
            for _ in range(64):
                file.write(b"x" * 65536)
                file.flush()
    except OSError as error:
        return "" if error.errno in (errno.ENOSPC, errno.EFBIG) else str(error)
    finally:
        Path("/workspace/fill").unlink()
    return "4 MiB fitted into 2 MiB"


def fork_limit() -> str:
    """EAGAIN, and at most as many children as allowed."""
    children: list[int] = []
    answer = "64 children where 32 were allowed"
    try:
        for _ in range(64):
            child = os.fork()
            if child == 0:
                signal_wait()
            children.append(child)
    except OSError as error:
        answer = "" if error.errno == errno.EAGAIN else str(error)
    for child in children:
        os.kill(child, 9)
        os.waitpid(child, 0)
    return answer


def signal_wait() -> None:
    """Keeps a child until it is killed."""
    while True:
        os.read(os.pipe()[0], 1)


CHECKS = {
    "gvisor": is_gvisor,
    "seccomp": lambda: refused("ptrace", 0, 0, 0, 0),
    "seccomp keys": lambda: refused("syscall", {"x86_64": 250, "aarch64": 219}[os.uname().machine], 0, 0),
    "seccomp namespaces": lambda: refused("unshare", 0x10000000),
    "seccomp sockets": raw_socket_refused,
    "no ipv4 route": lambda: unreachable(socket.AF_INET, "1.1.1.1"),
    "no metadata": lambda: unreachable(socket.AF_INET, "169.254.169.254"),
    "no ipv6 route": lambda: unreachable(socket.AF_INET6, "2606:4700:4700::1111"),
    "only loopback": only_loopback,
    "no capabilities": lambda: status("CapEff", "0" * 16),
    "no new privileges": lambda: "" if libc.prctl(39, 0, 0, 0, 0) == 1 else "PR_GET_NO_NEW_PRIVS is not 1",
    "user": lambda: "" if os.getuid() == 65532 else str(os.getuid()),
    "read-only root": root_read_only,
    "open files": lambda: "" if resource.getrlimit(resource.RLIMIT_NOFILE)[1] == 128 else "not limited",
    "disk limit": disk_full,
    "process limit": fork_limit,
}


def main() -> None:
    """Prints one JSON object."""
    answers = {}
    for name, check in CHECKS.items():
        try:
            answers[name] = check()
        except Exception as error:
            answers[name] = repr(error)
    print(json.dumps(answers))  # noqa: T201 (its answer)


if __name__ == "__main__":
    main()
