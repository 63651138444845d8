"""Where the suite plays: an engine in a network of its own, bait on the host, and runs with or without defences."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import logging
import os
import platform
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox import agent_ports
from sandbox.agent_forwarding import Outside
from sandbox.agent_upstreams import Upstreams
from sandbox.container_arguments import Host
from sandbox.docker_runner import DockerRunner
from sandbox.engine import Engine
from sandbox.execution import Execution
from sandbox.failed_start import FailedStarts
from sandbox.guest_frames import AgentExit
from sandbox.image.build import build
from sandbox.link.messages import RunRef
from sandbox.probe import Probe, ProbeSettings
from sandbox.run_folder import RunFolder
from sandbox.runner import Job
from sandbox.spec import Limits, RunResult, RunSpec
from tests.escape.outside import Trusting, open_ports, trusting_guest_host, trusting_server
from tests.escape.table import Defence
from tests.escape.weakened import RUNSC_WITH_NETWORK, RUNSC_WITH_SOCKETS, Bait, WeakenedEngine
from tests.sandbox.private_engine import GUEST, PACKAGES, PrivateEngine, runsc
from tests.sandbox.specs import spec_of
from workers.stack.docker_engine import RUNSC_ARGUMENTS, RUNTIME

HERE = Path(__file__).parent
INSIDE = HERE / "inside"
_SPARE_SOCKETS = ("unlink.sock", "rename.sock", "link.sock", "mode.sock")


class FencedEngine(PrivateEngine):
    """A private engine in the namespaces of ``internet.py``, with runtimes for the controls.

    A control that has the host's network, processes or mounts has those of the namespaces: the machine is not in reach.
    """

    def __init__(self, holder: int) -> None:
        super().__init__()
        self.command_prefix = ("nsenter", f"--target={holder}", "--net", "--pid", "--mount")

    def runtimes(self) -> dict[str, Any]:
        network = [text.replace("--network=none", "--network=host") for text in RUNSC_ARGUMENTS]
        making = [text.replace("--host-uds=open", "--host-uds=all") for text in RUNSC_ARGUMENTS]
        return {
            **super().runtimes(),
            RUNSC_WITH_NETWORK: {"path": runsc(), "runtimeArgs": network},
            RUNSC_WITH_SOCKETS: {"path": runsc(), "runtimeArgs": making},
        }

    def empty(self) -> None:
        """Removes the containers; the engine itself ends with its namespaces."""
        command = ["docker", "-H", self.host]
        listed = subprocess.run([*command, "ps", "-aq"], capture_output=True, text=True, check=False).stdout.split()
        if listed:
            subprocess.run([*command, "rm", "-f", *listed], capture_output=True, check=False)

    def forget(self) -> None:
        """After its namespaces have ended."""
        assert self._process is not None
        self._process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def internet() -> Generator[int]:
    """Namespaces with everything to reach in them; yields the process that holds them, whose end ends all in them."""
    command = ["unshare", "--net", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child"]
    command += [sys.executable, str(HERE / "internet.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", "namespaces could not be made: it takes root"
        yield int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        process.communicate()


@dataclass(frozen=True)
class Ended:
    """All that is known of a run.

    Attributes:
        word: What the guest, or somebody in its place, said of the agent's end.
        artifacts: By path, their bytes.
        modes: By path, the mode out here.
        strays: Files out here whose name an agent chose.
        logged: Lines that libraries wrote into the runtime's log.
    """

    result: RunResult
    output: bytes
    word: AgentExit | None
    artifacts: dict[str, bytes]
    modes: dict[str, int]
    strays: list[str]
    logged: int


class Ground:
    """One engine and its bait.

    Attributes:
        runs: Folder of all runs' mounts, as a host runtime has it.
    """

    def __init__(self, engine: PrivateEngine, base: Path, namespace: int) -> None:
        self._host = engine.host
        self._containerd = str(engine.containerd)
        self._engines: dict[frozenset[Defence], Engine] = {}
        self.base = base
        self.runs = base / "mounts"
        self.image = build(engine.host, PACKAGES, lambda text: None)
        self.guest = base / "guest"
        shutil.copy(GUEST, self.guest)
        canary = base / "canary" / "canary"
        canary.parent.mkdir()
        canary.write_text(secrets.token_hex(16))
        self.bait = Bait(canary, engine.socket, self.runs, secrets.token_hex(16))
        self.python = base / "setuid-python"
        self._namespace = namespace
        self._other = self._folder(RunRef(run_id=spec_of().run_id, attempt=1))

    def close(self) -> None:
        for engine in self._engines.values():
            engine.close()

    def runner(self, off: frozenset[Defence] = frozenset()) -> DockerRunner:
        """A runner whose sandboxes lack these defences."""
        if off not in self._engines:
            self._engines[off] = WeakenedEngine(self._host, off, self.bait) if off else Engine(self._host, threads=8)
        engine = self._engines[off]
        probe = Probe(engine, ProbeSettings(self.image, RUNTIME, self.base / "state", self.runs))
        failed = FailedStarts(engine, self._containerd)
        return DockerRunner(engine, Host(self.base.name, RUNTIME, self.guest), failed, probe)

    def _folder(self, run: RunRef) -> RunFolder:
        folder = RunFolder.of(self.base / "state", self.runs, run)
        folder.make()
        return folder

    def spec(self, entrypoint: tuple[str, ...], limits: Limits | None = None, **fields: Any) -> RunSpec:
        usual = Limits(wall_seconds=120, memory_bytes=512 << 20)
        return spec_of(image=self.image, entrypoint=entrypoint, limits=limits or usual, **fields)

    @contextlib.asynccontextmanager
    async def sandbox(
        self, spec: RunSpec, off: frozenset[Defence] = frozenset(), outside: Outside | None = None
    ) -> AsyncGenerator[tuple[Execution, RunFolder]]:
        """An execution, not yet started, and its folder; its container is removed at the end."""
        run = RunRef(run_id=spec.run_id, attempt=1)
        folder = self._folder(run)
        containers: list[str] = []

        async def remember(container_id: str, _: object) -> None:
            containers.append(container_id)

        runner = self.runner(off)
        execution = Execution(runner, Job(run, spec, folder, lambda: 300.0, outside=outside), remember)
        try:
            yield execution, folder
        finally:
            for container_id in containers:
                await runner.attach(container_id).kill()
                await runner.attach(container_id).remove()
            execution.bridge.spool.close()
            folder.remove()

    async def run(
        self, spec: RunSpec, off: frozenset[Defence] = frozenset(), files: dict[str, Any] | None = None
    ) -> Ended:
        """Runs it to its end, with the attacks among its inputs and servers for it to abuse."""
        upstream = Trusting(reflects=Defence.OUTSIDE in off)
        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(trusting_server(upstream))
            outside = None
            if Defence.BRIDGE not in off:
                outside = Outside(Upstreams(url, url), upstream.warrant, 1)
                stack.push_async_callback(outside.upstreams.close)
            execution, folder = await stack.enter_async_context(self.sandbox(spec, off, outside))
            self.lay_out(folder, files or {}, upstream.warrant)
            if outside is None:
                await stack.enter_async_context(open_ports(folder.bridge, url))
            await stack.enter_async_context(trusting_guest_host(folder.bridge))
            stack.enter_context(canary_sockets(folder.bridge, self.bait.canary))
            counting = stack.enter_context(counted_log(quiet=Defence.QUIET_LOG not in off))
            result = await execution.run()
            spool = execution.bridge.spool
            output = b"".join(record.data for record in spool.read(0, spool.end + 1))
            kept = {artifact.path: folder.artifacts / artifact.sha256 for artifact in result.artifacts}
            return Ended(
                result,
                output,
                execution.bridge.exit,
                {path: file.read_bytes() for path, file in kept.items()},
                {path: file.stat().st_mode & 0o7777 for path, file in kept.items()},
                sorted(str(path.relative_to(self.base)) for path in self.base.rglob("*escaped*")),
                counting.lines,
            )

    def lay_out(self, folder: RunFolder, files: dict[str, Any], warrant: str) -> None:
        """Puts the attacks among the inputs, and what they may know of the host: secrecy is no defence."""
        attacks = folder.inputs / "attacks"
        shutil.copytree(INSIDE, attacks, ignore=shutil.ignore_patterns("__pycache__"))
        where = {
            "canary": str(self.bait.canary),
            "canary_sha256": hashlib.sha256(self.bait.canary.read_bytes()).hexdigest(),
            "secret_sha256": hashlib.sha256(self.bait.secret.encode()).hexdigest(),
            "warrant_sha256": hashlib.sha256(warrant.encode()).hexdigest(),
            "handle": _handle(self.bait.canary).hex(),
            "engine": str(self.bait.engine),
            "other_run": self._other.mounts.name,
            "other_folder": str(self._other.mounts),
            "input": "/awgp/in/attacks/names.json",
            "disk": _disk(),
            "init_net": self._namespace,
            "kernel": [platform.release(), platform.version()],
        }
        for name, value in ({"names.json": []} | files | {"where.json": where | files.get("where.json", {})}).items():
            (attacks / name).write_text(json.dumps(value))
        setuid = attacks / "setuid-python"
        shutil.copy(self.python_of_the_image(), setuid)
        setuid.chmod(0o4755)

    def python_of_the_image(self) -> Path:
        """The image's interpreter, out here, for a copy with a setuid bit."""
        if not self.python.exists():
            command = ["docker", "-H", self._host]
            made = subprocess.run([*command, "create", self.image, "x"], capture_output=True, text=True, check=True)
            source = f"{made.stdout.strip()}:/usr/bin/python3"
            subprocess.run([*command, "cp", "-L", source, self.python], capture_output=True, check=True)
            subprocess.run([*command, "rm", made.stdout.strip()], capture_output=True, check=True)
        return self.python

    @contextlib.contextmanager
    def other_run(self) -> Generator[Path]:
        """Another run's folder, with a socket that answers."""
        with canary_sockets(self._other.bridge, self.bait.canary):
            yield self._other.mounts


@contextlib.contextmanager
def ground() -> Generator[Ground]:
    """Everything up; and down again."""
    base = Path(tempfile.mkdtemp(prefix="awgp-x-"))
    with contextlib.ExitStack() as last:
        last.callback(shutil.rmtree, base, ignore_errors=True)
        with internet() as holder:
            engine = FencedEngine(holder)
            engine.start()
            last.callback(engine.forget)
            made = Ground(engine, base, Path(f"/proc/{holder}/ns/net").stat().st_ino)
            try:
                with made.other_run():
                    yield made
            finally:
                made.close()
                engine.empty()


class _Counting(logging.Handler):
    lines = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += 1 + self.format(record).count("\n")


@contextlib.contextmanager
def counted_log(*, quiet: bool) -> Generator[_Counting]:
    """Counts what is logged; not quiet: as the bridge would be with its library's own logger."""
    counting, root = _Counting(), logging.getLogger()
    before = root.handlers[:]
    root.handlers[:] = [counting]
    logger = agent_ports._UNREAD
    logger.disabled = quiet
    try:
        yield counting
    finally:
        logger.disabled = True
        root.handlers[:] = before


@contextlib.contextmanager
def canary_sockets(folder: Path, canary: Path) -> Generator[None]:
    """Sockets of the host's in a run's folder: one that answers, and spare ones to be attacked."""
    sockets: list[socket.socket] = []
    for name in ("canary.sock", *_SPARE_SOCKETS):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / name))
        (folder / name).chmod(0o777)
        listener.listen(4)
        sockets.append(listener)
    serving = threading.Thread(target=_serve, args=(sockets[0], canary), daemon=True)
    serving.start()
    try:
        yield
    finally:
        sockets[0].shutdown(socket.SHUT_RDWR)
        serving.join(10)
        for listener in sockets:
            listener.close()


def _serve(listener: socket.socket, canary: Path) -> None:
    """A careless host: takes descriptors, and gives one of its own when asked."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            asked, descriptors, _, _ = socket.recv_fds(connection, 16, 4)
            for descriptor in descriptors:
                os.close(descriptor)
            if asked == b"give":
                with canary.open() as file:
                    socket.send_fds(connection, [b"here"], [file.fileno()])
            else:
                connection.sendall(str(len(descriptors)).encode())


def _handle(path: Path) -> bytes:
    """The kernel's name of a file that no folder leads to."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = ctypes.create_string_buffer((128).to_bytes(4, "little") + bytes(132), 136)
    mount = ctypes.c_int()
    if libc.name_to_handle_at(-100, str(path).encode(), handle, ctypes.byref(mount), 0) != 0:
        return b""
    return handle.raw[: 8 + int.from_bytes(handle.raw[:4], "little")]


def _disk() -> tuple[int, int]:
    """The first block device that the host itself can open: some hosts keep their disk from root, too."""
    for path in sorted(Path("/dev").iterdir(), reverse=True):
        if path.is_block_device():
            with contextlib.suppress(OSError):
                os.close(os.open(path, os.O_RDONLY))
                device = path.stat().st_rdev
                return os.major(device), os.minor(device)
    return 7, 0
