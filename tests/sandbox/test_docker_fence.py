"""From inside the sandbox nothing is reached, and no bomb harms more than its own run."""

import asyncio
import contextlib
import json

import pytest

from sandbox.container_arguments import Host
from sandbox.docker_runner import DockerRunner
from sandbox.probe import Probe, ProbeSettings
from sandbox.runner import ProbeFailedError
from sandbox.spec import Limits, RunOutcome
from tests.sandbox.conftest import RealRunner
from tests.sandbox.executions import MIB, lab, python, run
from tests.sandbox.private_engine import GUEST

pytestmark = pytest.mark.docker

REACHING = """
import json, socket, os
def reach(family, address, port, kind=socket.SOCK_STREAM):
    try:
        with socket.socket(family, kind) as s:
            s.settimeout(3)
            s.connect((address, port))
            if kind == socket.SOCK_DGRAM: s.send(b"x")
        return "reached"
    except OSError as error:
        return error.errno and os.strerror(error.errno)
def name():
    try:
        return socket.getaddrinfo("example.com", 80) and "resolved"
    except OSError as error:
        return "no dns"
print(json.dumps({
    "ipv4": reach(socket.AF_INET, "1.1.1.1", 443),
    "udp": reach(socket.AF_INET, "1.1.1.1", 53, socket.SOCK_DGRAM),
    "ipv6": reach(socket.AF_INET6, "2606:4700:4700::1111", 443),
    "metadata": reach(socket.AF_INET, "169.254.169.254", 80),
    "gateway": reach(socket.AF_INET, "172.17.0.1", 80),
    "dns": name(),
    "interfaces": [n for _, n in socket.if_nameindex()],
    "docker": os.path.exists("/var/run/docker.sock"),
    "awgp": sorted(os.listdir("/awgp")),
}))
"""


async def test_no_route_no_name_no_metadata(real: RealRunner) -> None:
    result, output = await run(real, python(real, REACHING))
    assert result.outcome is RunOutcome.SUCCEEDED, output
    seen = json.loads(output)
    for way in ("ipv4", "udp", "ipv6", "metadata", "gateway"):
        assert seen[way] in ("Network is unreachable", "No route to host", "Cannot assign requested address"), way
    assert seen["dns"] == "no dns"
    assert set(seen["interfaces"]) <= {"lo"}
    assert not seen["docker"]
    assert seen["awgp"] == ["guest", "in", "run"]


async def test_a_fork_bomb_is_told_no_and_the_host_lives(real: RealRunner) -> None:
    script = (
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "    while True:\n"
        "        if os.fork() == 0: time.sleep(600)\n"
        "        made += 1\n"
        "except OSError as error: print(error.errno, made)\n"
    )
    limits = Limits(memory_bytes=1024 * MIB, nproc=48, wall_seconds=60)
    result, output = await run(real, python(real, script, limits=limits))
    assert result.outcome is RunOutcome.SUCCEEDED, result.detail
    number, made = map(int, output.split())
    assert number == 11
    assert made < 48


async def test_a_disk_bomb_fills_its_own_disk(real: RealRunner) -> None:
    script = (
        "import errno\n"
        "for place in ('/workspace/x', '/tmp/x', '/dev/shm/x', '/x', '/awgp/run/x', '/awgp/in/x'):\n"
        "    try:\n"
        "        with open(place, 'wb') as file:\n"
        "            while True: file.write(b'x' * 65536)\n"
        "    except OSError as error: print(place, errno.errorcode[error.errno])\n"
    )
    limits = Limits(disk_bytes=8 * MIB, tmp_bytes=4 * MIB, wall_seconds=60)
    result, output = await run(real, python(real, script, limits=limits))
    assert result.outcome is RunOutcome.SUCCEEDED, (result.detail, output)
    said = dict(line.split() for line in output.decode().splitlines())
    assert {said[place] for place in ("/workspace/x", "/tmp/x", "/dev/shm/x")} <= {"ENOSPC", "EFBIG"}
    assert {said[place] for place in ("/x", "/awgp/run/x", "/awgp/in/x")} <= {"EROFS", "EACCES", "EPERM"}


async def test_the_probe_proves_the_fence(real: RealRunner) -> None:
    facts = await real.runner.facts()
    assert facts.gvisor_version
    assert facts.platform == "systrap"
    assert {"gvisor", "seccomp", "no ipv4 route", "memory limit", "process limit"} <= set(facts.checks)


async def test_the_probe_refuses_a_host_without_gvisor(real: RealRunner) -> None:
    """The control: the same containers under runc, where the defence is off."""
    host = Host(owner=real.base.name, docker_runtime="runc", guest=GUEST.resolve())
    settings = ProbeSettings(real.image, "runc", real.base / "state", real.base / "mounts")
    runner = DockerRunner(real.engine, host, real.failed, Probe(real.engine, settings))
    with pytest.raises(ProbeFailedError) as refusal:
        await runner.facts()
    assert {"gvisor"} <= set(refusal.value.failed) or "probe container" in refusal.value.failed


async def test_megabytes_at_once_arrive_whole(real: RealRunner) -> None:
    script = (
        "import sys, os\n"
        "for n in range(96): sys.stdout.write(chr(97 + n % 26) * 65536)\n"
        "sys.stdout.flush(); os.makedirs('/workspace/out', exist_ok=True)\n"
        "open('/workspace/out/done', 'w').write('done')\n"
    )
    async with lab(real, python(real, script)) as made:
        going = asyncio.create_task(made.execution.run())
        await asyncio.wait_for(made.execution.bridge.connected.wait(), 30)
        result = await asyncio.wait_for(going, 60)
        assert result.outcome is RunOutcome.SUCCEEDED
        assert result.output_bytes == 96 * 65536
        assert made.output() == b"".join(bytes([97 + n % 26]) * 65536 for n in range(96))


async def test_a_failed_start_leaves_no_task_behind(real: RealRunner) -> None:
    spec = python(real, "print()")
    host = Host(owner=real.base.name, docker_runtime="runsc-awgp", guest=real.base / "no-guest")
    (real.base / "no-guest").write_text("not a binary")
    runner = DockerRunner(
        real.engine, host, real.failed, Probe(real.engine, ProbeSettings("", "", real.base, real.base))
    )
    broken = RealRunner(runner, real.engine, real.image, real.base, real.failed)
    result, _ = await run(broken, spec)
    assert result.outcome is RunOutcome.START_FAILED, result
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(real.failed.settled(), 60)
    left = await real.engine.call(
        lambda client: client.api.containers(all=True, filters={"label": f"awgp.owner={real.base.name}"})
    )
    assert left == []
