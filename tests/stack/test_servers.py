"""A private stack's servers, really started, killed and ended."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from workers.stack import lifecycle, remnants, sandbox_parts
from workers.stack.leftovers import recorded
from workers.stack.paths import CHECKOUT
from workers.stack.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.docker, pytest.mark.xdist_group("stack"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    if os.getuid() != 0:
        pytest.skip("an engine of our own takes root")
    cache = Path(os.environ.get("AWGP_CACHE", CHECKOUT / ".awgp" / "cache"))
    with tempfile.TemporaryDirectory(prefix="aw", dir="/tmp") as folder:
        made = Stack(Path(folder) / "d", cache=cache, free_ports=True)
        lifecycle.prepare(made)
        made.start_supervisor()
        try:
            answer(made)
            yield made
        finally:
            lifecycle.down(made)
            made.forget()


def answer(stack: Stack) -> None:
    stack.postgres.wait(stack.credentials)
    stack.valkey.wait(stack.credentials)
    stack.engine.wait()
    stack.temporal.wait()


def test_a_killed_server_comes_back(stack: Stack) -> None:
    for name in ("postgres", "valkey", "temporal", "containerd", "dockerd"):
        old = stack.kill(name)
        assert stack.supervision.wait_running(name, not_pid=old) != old
    answer(stack)


def test_children_die_with_a_killed_supervisord_and_it_is_mended(stack: Stack) -> None:
    stack.kill("supervisord", signal.SIGKILL)
    deadline = time.monotonic() + 15
    while any(each.lives() for each in recorded(stack.paths)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [each.name for each in recorded(stack.paths) if each.lives()]
    stack.start_supervisor()
    answer(stack)


def test_the_machine_can_be_asked_who_runs(stack: Stack) -> None:
    assert stack.pid("postgres")
    assert stack.pid("api") is None
    assert stack.supervision.states()["api"].state == "STOPPED"


def test_roles_have_no_power_over_row_security(stack: Stack) -> None:
    stack.postgres.migrate(stack.credentials)
    with stack.postgres.connect(stack.credentials) as admin:
        rows = admin.execute(
            "SELECT rolname, rolsuper, rolbypassrls, rolcanlogin FROM pg_roles WHERE rolname LIKE 'awgp%' ORDER BY 1"
        ).fetchall()
    assert rows == [
        ("awgp_app", False, False, True),
        ("awgp_finder", False, False, False),
        ("awgp_owner", False, False, True),
        ("awgp_system", False, False, True),
    ]


def forget_a_sandbox(stack: Stack) -> None:
    """A sandbox that runs, and that the engine knows nothing of any more, as after a crash in the middle of a start."""
    sandbox_parts.build_image(stack.paths, stack.engine)
    client = docker.DockerClient(base_url=stack.engine.host, version="1.41")
    try:
        container = client.containers.run(
            "awgp/sandbox:latest",
            ["sleep", "600"],
            detach=True,
            runtime="runsc-awgp",
            network_mode="none",
            labels={"awgp.owner": "a test"},
        )
        identity = str(container.id)
    finally:
        client.close()
    old = stack.kill("dockerd")
    shutil.rmtree(stack.paths.docker / "data" / "containers" / identity)
    stack.supervision.wait_running("dockerd", not_pid=old)
    stack.engine.wait()


def test_down_leaves_nothing(stack: Stack) -> None:
    # Last in the file: the fixture's own down then finds nothing to do.
    forget_a_sandbox(stack)
    running = recorded(stack.paths)
    running += remnants.shims(stack.engine) + remnants.sandboxes(stack.engine)
    assert {each.name for each in running} & {"runsc-sandbox"}, "the engine has forgotten it, and it runs"
    lifecycle.down(stack)
    assert not [each.name for each in running if each.lives()]
    assert stack.supervision.pid() is None
    mounts = Path("/proc/self/mountinfo").read_text()
    assert f"{stack.paths.docker}/" not in mounts
