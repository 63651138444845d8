"""Brings a stack up and down."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import urllib.error
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from sandbox.status_file import RuntimeState, forget_status, read_status
from workers.stack import gvisor, leftovers, remnants, sandbox_parts, seeding
from workers.stack.paths import CHECKOUT
from workers.stack.processes import WORKERS, Process
from workers.stack.stack import Stack, unmount_below
from workers.stack.steps import SetupError, say, step, until

NOT_FENCED_SECONDS = 45
"""A probe on a busy machine may fail for once, and is tried again; one that fails for so long is right."""
PACKAGES = ("workflows", "activities", "workers", "api", "models", "sandbox")


def up(stack: Stack, wait_seconds: float = 180) -> None:
    """Set up what is missing, start what does not run, and wait until the API says that all is ready."""
    with stack.locked():
        prepare(stack)
        _start(stack)
        _ready(stack, wait_seconds)


def setup(stack: Stack) -> None:
    """Set up all that `up` needs, and leave nothing running that did not run before."""
    with stack.locked():
        prepare(stack)
        ran = stack.supervision.pid() is not None
        _servers(stack)
        if not ran:
            _end(stack)


def prepare(stack: Stack) -> None:
    """The steps that need no running server; each is done once."""
    _need("setpriv", "apt-get install -y util-linux")
    stack.credentials.hand_out(stack.paths, stack.ports)
    building = sandbox_parts.build_in_background(stack.paths)
    with step("Docker engine"):
        stack.engine.install()
    with step("PostgreSQL cluster, Valkey users"):
        stack.postgres.copy_files()
        stack.postgres.create_cluster(stack.credentials)
        stack.valkey.write_acl(stack.credentials)
    with step("gVisor and the guest (built from pinned sources where needed: a minute or two the first time)"):
        runsc = _patiently(building)
        version = gvisor.version_of(runsc)
        say(f"     gVisor {version or 'without a date'} at {runsc}")
        stack.engine.configure(runsc, version >= gvisor.pinned_version())


def _servers(stack: Stack) -> None:
    """Start the servers, then migrate and seed."""
    _restart_if_changed(stack)
    with step("PostgreSQL, Valkey, Temporal and the engine answer"):
        if stack.supervision.pid() is None:
            stack.start_supervisor()
        stack.postgres.wait(stack.credentials)
        stack.valkey.wait(stack.credentials)
        stack.engine.wait()
        stack.temporal.wait()
    with ThreadPoolExecutor(1) as pool:
        image = pool.submit(sandbox_parts.build_image, stack.paths, stack.engine)
        with step("migrations, seed, prices of models"):
            stack.postgres.migrate(stack.credentials)
            seeding.seed(stack.environment("owner"))
            seeding.prices(stack.environment("api"))
        with step("sandbox image"):
            image.result()


def _start(stack: Stack) -> None:
    _servers(stack)
    with step("processes"):
        for name in WORKERS:
            stack.supervision.start(name)
        for tenant in stack.tenants:
            seeding.hand_enrolment_token(stack.paths, tenant, stack.environment("api"))
            if stack.pid(f"runtime-{tenant}") is None:
                forget_status(stack.paths.runtime(tenant))  # what the last process found may be mended by now
            stack.supervision.start(f"runtime-{tenant}")


def down(stack: Stack) -> None:
    """End everything that the stack started, sandboxes too, and nothing else."""
    with stack.locked():
        _end(stack)


def _end(stack: Stack) -> None:
    if stack.supervision.pid() is None and remnants.shims(stack.engine):
        # Sandboxes outlived their engine; only an engine can end them.
        stack.start_supervisor()
    if stack.supervision.pid() is not None:
        for process in reversed(stack.processes()):
            if not process.is_server:
                stack.supervision.stop(process.name)
        with step("sandboxes removed"):
            stack.engine.wait()
            stack.engine.remove_containers()
        with step("processes ended"):
            if not stack.supervision.shutdown():
                say("     supervisord did not end in time; its processes are killed")
    leftovers.end(stack.paths)
    if stack.engine.own:
        forgotten = remnants.end(stack.engine)
        if forgotten:
            say(f"     {forgotten} processes were killed that their engine had forgotten")
        unmount_below(stack.paths.docker)


def _restart_if_changed(stack: Stack) -> None:
    """End supervisord when what it runs has changed; sandboxes live on and are found again."""
    stamp = stack.paths.stamps / "running"
    now = fingerprint(stack.processes())
    if stack.supervision.pid() is not None and (not stamp.exists() or stamp.read_text() != now):
        say("     settings or code have changed: processes are started anew")
        stack.supervision.shutdown()
        leftovers.end(stack.paths)
    stamp.write_text(now)


def fingerprint(processes: list[Process]) -> str:
    """What the running processes were started from: their command lines, variables and our code."""
    digest = hashlib.sha256(repr(processes).encode())
    for package in PACKAGES:
        for path in sorted((CHECKOUT / package).rglob("*.py")):
            stat = path.stat()
            digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _ready(stack: Stack, seconds: float) -> None:
    url = f"{stack.api_url}/readyz"
    with step("the control plane is ready"):
        last = "no answer"
        said = began = time.monotonic()
        for _ in until(time.monotonic() + seconds, pause=0.3):
            _, text = _get(url)
            states = stack.supervision.states().values()
            away = [f"{each.name} is {each.state}" for each in states if each.state != "RUNNING"] + not_ready(text)
            away += _runtimes_away(stack, patient=time.monotonic() - began < NOT_FENCED_SECONDS)
            if not away:
                return
            last = "; ".join(away)
            if time.monotonic() - said > 10:
                said = time.monotonic()
                say(f"     waiting: {last[:300]}")
        raise SetupError(f"not ready within {seconds:.0f} s: {last[:1000]}", f"tail -n 30 {stack.paths.log}/*.log")


def _runtimes_away(stack: Stack, *, patient: bool) -> list[str]:
    """Runtimes that no broker has welcomed yet.

    Raises:
        SetupError: One finds, also after some tries, that this machine does not fence what it would run.
    """
    away: list[str] = []
    for tenant in stack.tenants:
        name = f"runtime-{tenant}"
        state, words = read_status(stack.paths.runtime(tenant), stack.pid(name))
        if state is RuntimeState.NOT_FENCED and not patient:
            raise SetupError(f"{name}: this machine does not fence what it would run, so nothing runs: {words}",
                             f"tail -n 30 {stack.paths.log}/{name}.log")
        if state is not RuntimeState.CONNECTED:
            away.append(f"{name} is {state.value}" + (f": {words}" if words else ""))
    return away


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  (our own address)
            return answer.status, answer.read(4096).decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read(4096).decode(errors="replace")
    except (OSError, ValueError) as error:
        return 0, str(error)


def _patiently(building: Future[Path]) -> Path:
    """Wait for the build, and say now and then that it goes on."""
    started = time.monotonic()
    while True:
        try:
            return building.result(timeout=20)
        except TimeoutError:
            if building.done():
                raise
            say(f"     still building ({time.monotonic() - started:.0f} s)")


def _need(program: str, mend: str) -> None:
    if shutil.which(program) is None:
        raise SetupError(f"`{program}` is not there", mend)


def not_ready(text: str) -> list[str]:
    """What `/readyz` names as not well, in words; empty when all is. An answer of another kind is not well either."""
    try:
        named = cast("list[dict[str, Any]]", json.loads(text)["dependencies"])
        return [f"{one['name']}: {one['words'] or one['state']}" for one in named if one["state"] != "ok"]
    except (ValueError, KeyError, TypeError):
        return [text[:300] or "no answer"]
