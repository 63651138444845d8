"""The Docker engine: one of our own when we are root (the machine's stays untouched), else the machine's."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import docker
import docker.errors
import requests

from workers.stack.gvisor import TOOLCHAIN
from workers.stack.paths import Paths
from workers.stack.steps import SetupError, run, until

RUNTIME = "runsc-awgp"
# --directfs=false: the sandbox process is uid 65534 without capabilities. --oci-seccomp: our profile is obeyed.
RUNSC_ARGUMENTS = ("--network=none", "--host-uds=open", "--oci-seccomp", "--platform=systrap", "--directfs=false")
# What gVisor of 2022 does not know is left away (it has no systrap and no directfs).
OLD_RUNSC_ARGUMENTS = ("--network=none", "--fsgofer-host-uds", "--oci-seccomp")
MACHINE_SOCKET = Path("/var/run/docker.sock")
INSTALL = "apt-get update && apt-get install -y --no-install-recommends docker.io"


@dataclass(frozen=True)
class DockerEngine:
    """The engine that runs sandboxes."""

    paths: Paths

    @property
    def own(self) -> bool:
        """Whether we start an engine of our own; that takes root."""
        return os.getuid() == 0

    @property
    def host(self) -> str:
        """Its address, as the docker client wants it."""
        if self.own:
            return f"unix://{self.paths.docker_socket}"
        return os.environ.get("DOCKER_HOST", f"unix://{MACHINE_SOCKET}")

    @property
    def exec_root(self) -> Path:
        """Where our own engine keeps the state of what runs."""
        return self.paths.docker / "exec"

    @property
    def containerd_socket(self) -> Path:
        return self.exec_root / "containerd" / "containerd.sock"

    def install(self) -> None:
        """Install the engine where there is none; a `docker` client alone is not an engine."""
        if not self.own:
            return
        if shutil.which("dockerd") and shutil.which("containerd"):
            return
        if shutil.which("apt-get") is None:
            raise SetupError("there is no Docker engine (dockerd), and no apt-get to install one with", INSTALL)
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update"], INSTALL, env=quiet)
        run(["apt-get", "install", "-y", "--no-install-recommends", "docker.io"], INSTALL, env=quiet)

    def configure(self, runsc: Path, is_current: bool) -> None:
        """Write the configuration of our engine and its containerd."""
        if not self.own:
            return
        panics = self.paths.docker / "panic"
        for folder in (panics, self.containerd_socket.parent):
            folder.mkdir(parents=True, exist_ok=True)
        arguments = [*(RUNSC_ARGUMENTS if is_current else OLD_RUNSC_ARGUMENTS), f"--panic-log={panics}/%ID%.panic"]
        daemon = {"live-restore": True, "runtimes": {RUNTIME: {"path": str(runsc), "runtimeArgs": arguments}}}
        (self.paths.docker / "daemon.json").write_text(json.dumps(daemon, indent=1))
        (self.paths.docker / "containerd.toml").write_text(
            f'version = 2\nroot = "{self.paths.docker}/containerd"\nstate = "{self.containerd_socket.parent}/state"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{self.containerd_socket}"\n'
        )

    def containerd_program(self) -> list[str]:
        """Our containerd's command line; dockerd would otherwise share the machine's when one runs."""
        return ["containerd", "--config", str(self.paths.docker / "containerd.toml"), "--log-level", "warn"]

    def dockerd_program(self) -> list[str]:
        """Our engine's command line: no bridge and no iptables, because no sandbox has a network."""
        folder = self.paths.docker
        return [
            "dockerd",
            "--data-root",
            f"{folder}/data",
            "--exec-root",
            str(self.exec_root),
            "-H",
            f"unix://{self.paths.docker_socket}",
            "--pidfile",
            f"{folder}/docker.pid",
            "--config-file",
            f"{folder}/daemon.json",
            "--containerd",
            str(self.containerd_socket),
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--log-level",
            "warn",
        ]

    def wait(self, seconds: float = 90) -> None:
        """Wait until it answers and knows our runtime.

        Raises:
            SetupError: It does not; for the machine's engine with the commands that an administrator must run.
        """
        last = ""
        patience = seconds if self.own else 3
        for _ in until(time.monotonic() + patience, pause=0.2):
            last = self._lacks()
            if not last:
                return
        if self.own:
            raise SetupError(
                f"the Docker engine did not answer within {seconds:.0f} s ({last})",
                f"tail {self.paths.log / 'dockerd.log'}",
            )
        raise SetupError(f"the machine's Docker engine at {self.host} cannot be used ({last})", self._administrator())

    def _lacks(self) -> str:
        """What is wrong with the engine now; empty when it answers and knows our runtime."""
        if self.host.startswith("unix://"):
            # Asked first by a socket of our own: the docker client leaks its socket when nobody listens.
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(self.host.removeprefix("unix://"))
                except OSError as error:
                    return str(error)
        try:
            with closing(docker.DockerClient(base_url=self.host, timeout=10)) as client:
                return "" if RUNTIME in client.info()["Runtimes"] else f"it does not know the runtime {RUNTIME}"
        except (docker.errors.DockerException, requests.RequestException) as error:
            return str(error)

    def _administrator(self) -> str:
        runsc = "/usr/local/bin/runsc"
        runtime = {"runtimes": {RUNTIME: {"path": runsc, "runtimeArgs": list(RUNSC_ARGUMENTS)}}, "live-restore": True}
        return "\n    ".join(
            (
                f"sudo sh -c '{INSTALL}' && sudo usermod -aG docker $USER",
                f"{TOOLCHAIN}/build.sh /tmp/runsc && sudo install -m 755 /tmp/runsc {runsc}",
                f"echo '{json.dumps(runtime)}' | sudo tee /etc/docker/daemon.json",
                "sudo systemctl restart docker   # then log in again and run `make up`",
            )
        )

    def remove_containers(self) -> int:
        """Remove every container of this stack's runtimes; how many there were.

        They are told by the label that names the runtime's state folder, so another stack's stay.
        """
        removed = 0
        with closing(docker.DockerClient(base_url=self.host, timeout=60)) as client:
            for container in client.containers.list(all=True, ignore_removed=True, filters={"label": "awgp.owner"}):
                if not self.own and not self._is_ours(container.labels.get("awgp.owner", "")):
                    continue
                try:
                    container.remove(force=True)
                    removed += 1
                except docker.errors.APIError as error:
                    if error.status_code not in (404, 409):  # gone already, or going
                        raise
        return removed

    def _is_ours(self, owner: str) -> bool:
        folder = self.paths.data / "runtime"
        return any(owner == path.read_text().strip() for path in folder.glob("*/owner"))
