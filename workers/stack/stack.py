"""One embedded stack, whole: what `make up` starts, and what tests and the chaos harness start privately."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from workers.stack import config, leftovers, ports, supervisor
from workers.stack.credentials import Credentials
from workers.stack.docker_engine import DockerEngine
from workers.stack.paths import CHECKOUT, LONGEST_DATA, Paths
from workers.stack.postgres import Postgres
from workers.stack.processes import WORKERS, Process, worker
from workers.stack.seeding import tenants
from workers.stack.steps import SetupError, until
from workers.stack.supervision import Supervision
from workers.stack.temporal import Temporal
from workers.stack.valkey import Valkey


class Stack:
    """An embedded stack in a data folder of its own.

    Args:
        data: Its folder.
        cache: What it shares with others (built binaries, Go's caches); default: `AWGP_CACHE`, else `<data>/cache`.
        free_ports: Take free ports instead of the defaults (tests).
        settings: Settings (`AWGP_…`) that are kept in its `config.env`.

    Attributes:
        paths: Where its things lie.
        ports: What listens where.
        supervision: A client of its supervisord.
    """

    def __init__(
        self,
        data: Path,
        *,
        cache: Path | None = None,
        free_ports: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        shared = os.environ.get("AWGP_CACHE")
        self.paths = Paths.of(data, cache or (Path(shared) if shared else None))
        if len(str(self.paths.data)) > LONGEST_DATA:
            raise SetupError(
                f"the data folder's path is longer than {LONGEST_DATA} characters, too long for sockets in it: "
                f"{self.paths.data}",
                "AWGP_DATA=/var/lib/awgp make up",
            )
        self.paths.make()
        kept = {**config.read(self.paths.config), **(settings or {})}
        self.ports = ports.choose(kept, os.environ, free_ports)
        self.kept = {**kept, **self.ports.settings()}
        config.write(self.paths.config, self.kept)
        self.credentials = Credentials.load_or_make(self.paths)
        self.engine = DockerEngine(self.paths)
        self.postgres = Postgres(self.paths, self.ports)
        self.valkey = Valkey(self.paths, self.ports)
        self.temporal = Temporal(self.paths, self.ports)
        self.supervision = Supervision(self.paths)

    @property
    def api_url(self) -> str:
        return self.environment("api")["AWGP_API_URL"]

    @property
    def tenants(self) -> list[str]:
        """Slugs of the tenants that have a runtime here: all that are seeded."""
        return tenants(Path(self.environment("owner")["AWGP_SEED_FILE"]))

    def environment(self, process: str) -> dict[str, str]:
        """The variables of a process of the control plane (`owner`: migrations and seed; `cli`: the command)."""
        jwks = self.credentials.warrant_jwks()
        common = config.environment(self.paths, self.ports, jwks, self.kept)
        return {**common, "AWGP_SECRETS_DIR": str(self.paths.secrets / process)}

    def processes(self) -> list[Process]:
        """Everything that is supervised here."""
        found = [
            Process(
                "postgres",
                self.postgres.program(),
                {"TZ": "UTC"},
                is_server=True,
                death_signal="INT",
                stop_signal="INT",
                as_server_user=True,
                order=10,
            ),
            Process("valkey", self.valkey.program(), {}, is_server=True, order=10),
            Process("temporal", self.temporal.program(), {}, is_server=True, order=20),
        ]
        if self.engine.own:
            found.append(Process("containerd", self.engine.containerd_program(), {}, is_server=True, order=10))
            found.append(Process("dockerd", self.engine.dockerd_program(), {}, is_server=True, order=20))
        found += [worker(name, self.environment(name), order=100) for name in WORKERS]
        found += [self._runtime(tenant) for tenant in self.tenants]
        return found

    def _runtime(self, tenant: str) -> Process:
        jwks = self.credentials.warrant_jwks()
        variables = config.runtime_environment(self.paths, self.ports, tenant, jwks, self.engine.host)
        if self.engine.own:
            variables["AWGP_RUNTIME_CONTAINERD_SOCKET"] = str(self.engine.containerd_socket)
        for name, value in self.kept.items():
            if name.startswith("AWGP_RUNTIME_"):
                variables[name] = value
        name = f"runtime-{tenant}"
        return worker(name, {**variables, "AWGP_SECRETS_DIR": str(self.paths.secrets / name)}, "runtime", order=110)

    def pid(self, name: str) -> int | None:
        """A process's pid now (`supervisord` too); None while it does not run."""
        if name == "supervisord":
            return self.supervision.pid()
        state = self.supervision.states().get(name)
        return state.pid if state is not None and state.pid else None

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a process a signal; its pid.

        Raises:
            ProcessLookupError: It does not run.
        """
        pid = self.pid(name)
        if pid is None:
            raise ProcessLookupError(name)
        os.kill(pid, number)
        return pid

    def start_supervisor(self) -> None:
        """Render the configuration and start supervisord with the servers; what it left before is ended first."""
        leftovers.end(self.paths)
        target = supervisor.write(self.paths, self.processes())
        with (self.paths.log / "supervisord.start.log").open("w") as log:
            done = subprocess.run(
                supervisor.daemon_command(target),
                env=supervisor.base_environment(),
                cwd=CHECKOUT,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                check=False,
                timeout=30,
            )
        if done.returncode != 0:
            raise SetupError("supervisord did not start", f"cat {log.name}")
        for _ in until(time.monotonic() + 15):
            pid = self.supervision.pid()
            if pid is not None:
                leftovers.record(self.paths, "supervisord", pid)
                return
        raise SetupError("supervisord does not answer", f"tail {self.paths.log}/supervisord.log")

    @contextmanager
    def locked(self) -> Generator[None]:
        """One command at a time on one stack."""
        with (self.paths.data / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise SetupError(f"another command works on {self.paths.data}", "wait for it to end") from error
            yield

    def forget(self) -> None:
        """Remove all its data (the cache too when it lies within). The stack must be down."""
        unmount_below(self.paths.docker)
        for folder in (self.paths.postgres, self.paths.runs, self.paths.data):
            shutil.rmtree(folder, ignore_errors=True)
        outside = Path("/var/lib") / f"awgp-{self.paths.tag}"
        shutil.rmtree(outside, ignore_errors=True)
        if self.paths.data.exists():
            raise SetupError(f"{self.paths.data} could not be removed whole", f"rm -rf {self.paths.data}")


def unmount_below(folder: Path) -> None:
    """Unmount what an engine left mounted below a folder, deepest first."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((each for each in mounts if each.startswith(f"{folder}/")), key=len, reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
