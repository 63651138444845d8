"""The guest as PID 1 of a real sandbox, with the host runtime's own side of the socket."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import docker
import pytest

from sandbox.bridge import Bridge
from sandbox.container_arguments import Host, container_arguments, guest_config
from sandbox.image_command import resolve_command
from sandbox.link.messages import RunRef
from sandbox.run_folder import RunFolder
from sandbox.runner import Job
from sandbox.spec import Limits, RunSpec

pytestmark = pytest.mark.docker

EXAMPLE = Path(__file__).parents[3] / "examples" / "reconcile"
IMAGE = "awgp/sandbox:latest"


class Sandbox:
    """One container and the bridge to it."""

    def __init__(self, container: Any, bridge: Bridge, folder: RunFolder) -> None:
        self.container = container
        self.bridge = bridge
        self.folder = folder

    async def end(self, seconds: float = 60) -> int:
        await asyncio.wait_for(self.bridge.complete.wait(), seconds)
        await self.bridge.finish()
        return (await asyncio.to_thread(self.container.wait, timeout=seconds))["StatusCode"]

    def output(self) -> bytes:
        return (self.folder.state / "output.bin").read_bytes()

    def artifact(self, path: str) -> bytes:
        return (self.folder.artifacts / self.bridge.intake.kept[path].sha256).read_bytes()


@pytest.fixture
def sandbox(engine: docker.DockerClient, guest: Path, tmp_path: Path) -> Callable[..., Any]:
    @asynccontextmanager
    async def start(
        *command: str,
        image: str = IMAGE,
        env: dict[str, str] | None = None,
        inputs: Path | None = None,
        lease: Callable[[], float] = lambda: 120.0,
    ) -> AsyncGenerator[Sandbox]:
        spec = RunSpec(
            run_id=uuid4(), work_item_id=uuid4(), tenant_id=uuid4(), assistant_id=uuid4(),
            image=image, entrypoint=command or None, env=env or {}, limits=Limits(),
        )  # fmt: skip
        run = RunRef(run_id=spec.run_id, attempt=1)
        folder = RunFolder.of(tmp_path / "state", tmp_path / "mounts", run)
        folder.make()
        if inputs:
            shutil.copytree(inputs, folder.inputs, dirs_exist_ok=True)
        job = Job(run, spec, folder, lease)
        resolved = resolve_command(engine.api.inspect_image(image), spec)
        (folder.bridge / "guest.json").write_text(json.dumps(guest_config(job, resolved)))
        bridge = Bridge(folder, spec.limits, lease)
        arguments = container_arguments(job, resolved, Host("guest-test", "runsc-awgp", guest))
        container = await asyncio.to_thread(lambda: engine.containers.create(**arguments))
        try:
            await asyncio.to_thread(container.start)
            box = Sandbox(container, bridge, folder)
            await bridge.start()
            yield box
        finally:
            await bridge.close()
            await asyncio.to_thread(lambda: container.remove(force=True))

    return start


async def test_the_reconciliation_job_runs_in_gvisor(sandbox: Callable[..., Any]) -> None:
    agent = ("python3", "/opt/awgp/agents/reconcile.py")
    parameters = json.dumps({"prepare_payments": True})
    async with sandbox(
        *agent,
        inputs=EXAMPLE,
        env={
            "AWGP_PARAMETERS": parameters, "AWGP_INPUT_DIR": "/awgp/in", "AWGP_OUTPUT_DIR": "/workspace/out",
        },
    ) as box:  # fmt: skip
        assert await box.end() == 0, box.output()
        assert sorted(box.bridge.intake.kept) == ["payments.xml", "report.md", "result.json"]
        assert json.loads(box.artifact("result.json"))["summary"]["open"] == 7
        assert b"wrote payments.xml: 7 transfers" in box.output()


async def test_an_agent_that_ends_before_anybody_listens_loses_nothing(sandbox: Callable[..., Any]) -> None:
    async with sandbox("sh", "-c", "echo out; echo err >&2; exit 7") as box:
        assert await box.end() == 7
        assert sorted(box.output().split()) == [b"err", b"out"]


async def test_output_is_byte_exact_over_restarts_of_the_host(sandbox: Callable[..., Any]) -> None:
    program = (
        "import hashlib, os, sys\n"
        "data = b''.join(hashlib.sha256(b'%d' % i).digest() for i in range(400_000))\n"
        "sys.stdout.buffer.write(data)\n"
    )
    expected = b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(400_000))
    async with sandbox("python3", "-c", program) as box:
        restarts = 0
        while not box.bridge.complete.is_set() and restarts < 20:
            before = box.bridge.spool.end
            await asyncio.sleep(0.3)
            if not box.bridge.complete.is_set() and box.bridge.spool.end > before:
                await box.bridge.close()
                box.bridge = Bridge(box.folder, Limits(), lambda: 120.0)
                await box.bridge.start()
                restarts += 1
        assert await box.end() == 0
        await box.bridge.close()
        assert hashlib.sha256(box.output()).digest() == hashlib.sha256(expected).digest()


async def test_hostile_artifacts_stay_inside(sandbox: Callable[..., Any]) -> None:
    script = (
        "cd out; echo fine > fine.txt; ln -s /etc/passwd link; ln -s / folder;"
        "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")';"
        "echo x > suid; chmod 4755 suid; mkdir -p a/b; echo deep > a/b/c"
    )
    async with sandbox("sh", "-c", script) as box:
        assert await box.end() == 0
        assert sorted(box.bridge.intake.kept) == ["a/b/c", "fine.txt", "suid"]
        assert box.bridge.intake.skipped == {
            "folder": "symbolic link", "link": "symbolic link", "socket": "not a regular file",
        }  # fmt: skip


async def test_a_missing_command_is_an_end_not_a_failed_start(sandbox: Callable[..., Any]) -> None:
    async with sandbox("no-such-command") as box:
        assert await box.end() == 127
        assert box.bridge.exit is not None
        assert "no-such-command: command not found" in box.bridge.exit.detail


async def test_term_reaches_the_agent_and_the_code_says_so(sandbox: Callable[..., Any]) -> None:
    async with sandbox("sh", "-c", "echo ready; exec sleep 60") as box:
        async with asyncio.timeout(30):
            while not box.bridge.spool.end:  # noqa: ASYNC110 (the spool tells nobody in this process)
                await asyncio.sleep(0.05)
        assert box.bridge.signal("TERM")
        assert await box.end() == 143


async def test_the_agent_cannot_read_the_guest_or_write_its_folder(sandbox: Callable[..., Any]) -> None:
    script = "head -c 1 /proc/1/mem && echo READ; touch /awgp/run/x && echo WROTE; echo alive"
    async with sandbox("sh", "-c", script) as box:
        assert await box.end() == 0
        assert b"alive" in box.output()
        assert b"READ" not in box.output()
        assert b"WROTE" not in box.output()
        assert not (box.folder.bridge / "x").exists()


async def test_an_agent_that_kills_the_guest_ends_its_own_run(sandbox: Callable[..., Any]) -> None:
    async with sandbox("sh", "-c", "kill -KILL 1; sleep 60") as box:
        assert (await asyncio.to_thread(box.container.wait, timeout=30))["StatusCode"] == 137
        assert not box.bridge.complete.is_set()


async def pause(box: Any, seconds: float) -> None:
    await asyncio.to_thread(box.container.pause)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(box.container.unpause)


async def test_a_pause_within_the_lease_does_no_harm(sandbox: Callable[..., Any]) -> None:
    async with sandbox("sh", "-c", "sleep 2; exit 3", lease=lambda: 30.0) as box:
        await asyncio.wait_for(box.bridge.connected.wait(), 30)
        await pause(box, 3)
        assert await box.end() == 3


async def test_a_pause_beyond_the_lease_ends_it_whatever_waits_in_the_socket(sandbox: Callable[..., Any]) -> None:
    left = 6.0
    async with sandbox("sleep", "60", lease=lambda: left) as box:
        await asyncio.wait_for(box.bridge.connected.wait(), 30)
        await asyncio.to_thread(box.container.pause)
        left = 3600.0
        box.bridge.tell_lease()
        await asyncio.sleep(8)
        await asyncio.to_thread(box.container.unpause)
        assert (await asyncio.to_thread(box.container.wait, timeout=20))["StatusCode"] == 143


async def test_background_processes_end_with_the_agent(sandbox: Callable[..., Any]) -> None:
    async with sandbox("sh", "-c", "setsid sh -c 'sleep 300' & (sleep 0.1 &); echo done") as box:
        assert await box.end(30) == 0
        assert box.output() == b"done\n"


@pytest.fixture(scope="session")
def scratch_image(engine: docker.DockerClient, go: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of one static binary: no Python, no shell, no folder, no mount point."""
    folder = tmp_path_factory.mktemp("scratch")
    (folder / "agent.go").write_text(
        "package main\n"
        'import ("fmt"; "os")\n'
        "func main() {\n"
        '    fmt.Println("from scratch", os.Getpid() != 1, os.Getenv("HOME"))\n'
        '    if err := os.WriteFile("out/result", []byte("made"), 0o644); err != nil { panic(err) }\n'
        "    os.Exit(9)\n"
        "}\n"
    )
    subprocess.run(
        [go, "build", "-trimpath", "-ldflags=-s -w", "-o", folder / "agent", folder / "agent.go"],
        env={**os.environ, "CGO_ENABLED": "0"}, check=True, timeout=200,
    )  # fmt: skip
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(folder / "agent", "agent")
    untyped: Any = engine.api
    untyped.import_image_from_data(
        archive.getvalue(), repository="awgp/test-scratch", tag="latest", changes=['ENTRYPOINT ["/agent"]']
    )
    return "awgp/test-scratch:latest"


async def test_an_image_from_scratch_runs(sandbox: Callable[..., Any], scratch_image: str) -> None:
    async with sandbox(image=scratch_image, env={"HOME": "/workspace"}) as box:
        assert await box.end() == 9
        assert box.output() == b"from scratch true /workspace\n"
        assert box.artifact("result") == b"made"
