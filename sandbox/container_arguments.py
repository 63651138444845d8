"""The arguments a sandbox is created with: each limit of the design, in the engine's words."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.types import LogConfig, Mount, Ulimit

from sandbox.agent_ports import ENVIRONMENT, LISTEN
from sandbox.image_command import ImageCommand, continuation_env
from sandbox.run_folder import run_key
from sandbox.runner import Job
from sandbox.seccomp import seccomp_profile

UID = 65532

LABEL_RUN = "awgp.run"
LABEL_ATTEMPT = "awgp.attempt"
LABEL_TENANT = "awgp.tenant"
LABEL_OWNER = "awgp.owner"
LABEL_PREPARED = "awgp.prepared"

_SECURITY = ["no-new-privileges", "seccomp=" + seccomp_profile()]


@dataclass(frozen=True)
class Host:
    """What differs from host to host.

    Attributes:
        owner: Label value: this runtime's state folder, so that two runtimes never meet.
        docker_runtime: The engine's name of gVisor.
        guest: Path of the guest binary for the engine.
    """

    owner: str
    docker_runtime: str
    guest: Path


def container_arguments(job: Job, command: ImageCommand, host: Host) -> dict[str, Any]:
    """Returns the keyword arguments of the SDK's ``containers.create``."""
    limits = job.spec.limits
    return {
        "image": job.spec.image,
        "name": f"awgp-{run_key(job.run)}",
        "entrypoint": ["/awgp/guest"],
        "command": [],
        "working_dir": "/",
        "hostname": "sandbox",
        "healthcheck": {"test": ["NONE"]},
        "runtime": host.docker_runtime,
        "network_mode": "none",
        # Not the same as the mode: without it Docker makes a network sandbox, which costs 80 ms.
        "network_disabled": True,
        "user": f"{UID}:{UID}",
        "cap_drop": ["ALL"],
        "security_opt": _SECURITY,
        "read_only": True,
        "ipc_mode": "private",
        "shm_size": "16m",
        "tmpfs": {
            "/tmp": f"rw,nosuid,nodev,size={limits.tmp_bytes},mode=1777",  # noqa: S108 (inside)
            "/workspace": f"rw,nosuid,nodev,exec,size={limits.disk_bytes},uid={UID},gid={UID},mode=0700",
        },
        "mem_limit": limits.memory_bytes,
        # Equal to the memory: no swap.
        "memswap_limit": limits.memory_bytes,
        "nano_cpus": limits.cpu_nanos,
        "pids_limit": limits.pids,
        "ulimits": _ulimits(job),
        "oom_score_adj": 500,
        "stdin_open": False,
        "tty": False,
        "auto_remove": False,
        "restart_policy": {"Name": "no"},
        "log_config": LogConfig(type="local", config={"max-size": "1m", "max-file": "1", "compress": "false"}),
        "labels": {
            LABEL_RUN: str(job.run.run_id),
            LABEL_ATTEMPT: str(job.run.attempt),
            LABEL_TENANT: str(job.spec.tenant_id),
            LABEL_OWNER: host.owner,
        },
        "mounts": _mounts(job, command, host),
    }


def _ulimits(job: Job) -> list[Ulimit]:
    limits = job.spec.limits
    values = {
        "nproc": limits.nproc,
        "nofile": limits.nofile,
        "core": 0,
        "fsize": max(limits.disk_bytes, limits.tmp_bytes),
    }
    return [Ulimit(name=name, soft=value, hard=value) for name, value in values.items()]


def _mounts(job: Job, command: ImageCommand, host: Host) -> list[Mount]:
    mounts = [
        Mount("/awgp/guest", str(host.guest), type="bind", read_only=True),
        Mount("/awgp/run", str(job.folder.bridge), type="bind", read_only=True),
        Mount("/awgp/in", str(job.folder.inputs), type="bind", read_only=True),
    ]
    # An image's VOLUME would become a host folder of any size: a small tmpfs stands in for it.
    own = {"/tmp", "/workspace"}  # noqa: S108 (inside)
    for path in command.volumes:
        if path not in own and not path.startswith("/awgp"):
            mounts.append(Mount(path, None, type="tmpfs", tmpfs_size=job.spec.limits.tmp_bytes))
    return mounts


def guest_config(job: Job, command: ImageCommand) -> dict[str, object]:
    """Returns what the guest reads from ``guest.json``.

    The lease is in it for a guest that never sees its runtime; ``written_at`` (Unix seconds) lets the time
    count that the engine takes to start it.
    """
    return {
        "argv": list(command.argv),
        "env": command.env | continuation_env(job.continuation) | (ENVIRONMENT if job.outside else {}),
        "listen": LISTEN if job.outside else {},
        "workdir": command.workdir,
        "uid": UID,
        "in": "/awgp/in",
        "out": "/workspace/out",
        "max_artifact_bytes": job.spec.limits.artifact_bytes,
        "lease_seconds": job.lease(),
        "written_at": time.time(),
    }
