"""The engine's client with some defences switched off: what the controls run through."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from docker.types import Mount

from sandbox.engine import Engine
from tests.escape.table import Defence

Result = TypeVar("Result")

_DEVICES = ("kvm", "fuse", "loop-control", "kmsg", "vsock", "mem", "net/tun", "loop0")
_CAPABILITIES = tuple(
    """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
    """.split()  # noqa: SIM905 (a list of forty lines says no more)
)

RUNSC_WITH_NETWORK = "runsc-network"
RUNSC_WITH_SOCKETS = "runsc-sockets"


@dataclass(frozen=True)
class Bait:
    """What lies about on the host for a control to find.

    Attributes:
        canary: A file that no sandbox may read; lies in a folder of its own.
        engine: The engine's own socket.
        runs: The folder of all runs' folders.
        secret: A value of the host's environment.
    """

    canary: Path
    engine: Path
    runs: Path
    secret: str


def weaken(arguments: dict[str, Any], off: frozenset[Defence], bait: Bait) -> dict[str, Any]:
    """Returns the arguments of ``containers.create`` without these defences."""
    changed = dict(arguments)
    changed["runtime"] = _runtime(changed["runtime"], off)
    changed["security_opt"] = _security(changed["security_opt"], off)
    changed["mounts"] = _mounts(changed["mounts"], off, bait)
    if Defence.NO_NETWORK in off:
        changed |= {"network_mode": "host", "network_disabled": False}
    if Defence.CAPABILITIES in off:
        changed |= {"cap_drop": [], "cap_add": _capabilities() if Defence.GVISOR in off else ["ALL"]}
    if Defence.LIMITS in off:
        changed["shm_size"] = "160m"
    if Defence.READ_ONLY_ROOT in off:
        changed["read_only"] = False
    if Defence.OWN_PROCESSES in off:
        changed["pid_mode"] = "host"
    if Defence.UNPRIVILEGED in off:
        # Not *privileged* itself: that takes every capability, and a machine may lack one.
        changed["devices"] = [f"/dev/{name}:/dev/{name}:rwm" for name in _DEVICES if Path("/dev", name).exists()]
        changed["device_cgroup_rules"] = ["b *:* rwm", "c *:* rwm"]
        changed["mounts"].append(Mount("/sys", "/sys", type="bind"))
    if Defence.USER in off:
        changed["user"] = "0:0"
        changed["tmpfs"] = {path: text.replace("65532", "0") for path, text in changed["tmpfs"].items()}
    _change_guest_json(arguments, off, bait)
    return changed


def _capabilities() -> list[str]:
    """All that this machine can give; gVisor's are its own."""
    status = Path("/proc/self/status").read_text()
    bounding = int(status.partition("CapBnd:")[2].split()[0], 16)
    return [name for number, name in enumerate(_CAPABILITIES) if bounding >> number & 1]


def _runtime(usual: str, off: frozenset[Defence]) -> str:
    if Defence.GVISOR in off:
        return "runc"
    if Defence.NO_NETWORK in off:
        return RUNSC_WITH_NETWORK
    return RUNSC_WITH_SOCKETS if Defence.NO_SOCKET_MAKING in off else usual


def _security(options: list[str], off: frozenset[Defence]) -> list[str]:
    kept = [
        option
        for option in options
        if not (Defence.SECCOMP in off and option.startswith("seccomp="))
        and not (Defence.NO_NEW_PRIVILEGES in off and option == "no-new-privileges")
    ]
    return [*kept, "seccomp=unconfined"] if Defence.SECCOMP in off else kept


def _mounts(mounts: list[Mount], off: frozenset[Defence], bait: Bait) -> list[Mount]:
    kept = [Mount(**_words(mount, Defence.READ_ONLY_BINDS not in off)) for mount in mounts]
    if Defence.OWN_FOLDER in off:
        kept.append(Mount("/awgp/runs", str(bait.runs), type="bind", read_only=True))
    if Defence.NOTHING_ELSE in off:
        for folder in (bait.canary.parent, bait.engine.parent):
            kept.append(Mount(str(folder), str(folder), type="bind", read_only=True))
    return kept


def _words(mount: Mount, read_only: bool) -> dict[str, Any]:
    return {"target": mount["Target"], "source": mount["Source"], "type": mount["Type"], "read_only": read_only}


def _change_guest_json(arguments: dict[str, Any], off: frozenset[Defence], bait: Bait) -> None:
    folder = next(mount["Source"] for mount in arguments["mounts"] if mount["Target"] == "/awgp/run")
    path = Path(folder) / "guest.json"
    config = json.loads(path.read_text())
    if Defence.USER in off:
        config["uid"] = 0
    if Defence.OUTSIDE in off:
        config["env"]["AWGP_ESCAPE_SECRET"] = bait.secret
    path.write_text(json.dumps(config))


class _Containers:
    def __init__(self, containers: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._containers = containers
        self._change = change

    def create(self, **arguments: Any) -> Any:
        return self._containers.create(**self._change(arguments))


class _Client:
    def __init__(self, client: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.containers = _Containers(client.containers, change)
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class WeakenedEngine(Engine):
    """An engine whose containers lack some defences."""

    def __init__(self, docker_host: str, off: frozenset[Defence], bait: Bait) -> None:
        super().__init__(docker_host, threads=8)
        self._change = lambda arguments: weaken(arguments, off, bait)

    async def call(self, work: Callable[[Any], Result], seconds: float = 65) -> Result:
        return await super().call(lambda client: work(_Client(client, self._change)), seconds)
