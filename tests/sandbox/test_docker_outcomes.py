"""Each way a run can end, for real: Docker, gVisor, the guest."""

import asyncio
import io
import tarfile

import pytest

from sandbox.outcome import judge
from sandbox.spec import Limits, RunOutcome
from tests.sandbox.conftest import RealRunner
from tests.sandbox.executions import MIB, lab, python, run
from tests.sandbox.link_world import until
from tests.sandbox.private_engine import GUEST
from tests.sandbox.specs import spec_of

pytestmark = pytest.mark.docker

O = RunOutcome  # noqa: E741


@pytest.mark.parametrize(
    ("script", "outcome", "code"),
    [
        ("print('ok')", O.SUCCEEDED, 0),
        ("raise SystemExit(3)", O.FAILED_EXIT, 3),
        ("import os; os.kill(os.getpid(), 11)", O.FAILED_EXIT, 139),
        ("import os; os.kill(os.getpid(), 9)", O.FAILED_EXIT, 137),
        ("b=[]\nwhile True: b.append(bytearray(b'x') * (8 << 20))", O.OUT_OF_MEMORY, 137),
    ],
    ids=["success", "exit code", "segmentation fault", "kills itself", "memory bomb"],
)
async def test_the_end_of_an_agent(real: RealRunner, script: str, outcome: RunOutcome, code: int) -> None:
    limits = Limits(memory_bytes=128 * MIB, wall_seconds=60)
    result, _ = await run(real, python(real, script, limits=limits))
    assert (result.outcome, result.exit_code) == (outcome, code), result.detail


async def test_an_instant_exit_loses_nothing_and_is_accounted(real: RealRunner) -> None:
    script = (
        "import os, sys\n"
        "os.makedirs('/workspace/out/sub', exist_ok=True)\n"
        "open('/workspace/out/sub/a.txt','w').write('artifact')\n"
        "os.symlink('/etc/passwd', '/workspace/out/link')\n"
        "sys.stdout.write('x' * 300000); sys.stdout.flush()\n"
        "sys.stderr.write('last words'); sys.stderr.flush()\n"
        "os._exit(0)\n"
    )
    result, output = await run(real, python(real, script))
    assert result.outcome is O.SUCCEEDED
    assert output.count(b"x") == 300000
    assert b"last words" in output
    assert [(a.path, a.size) for a in result.artifacts] == [("sub/a.txt", 8)]
    assert "link" in result.detail
    assert result.cpu_seconds
    assert result.cpu_seconds > 0
    assert result.memory_peak_bytes
    assert result.memory_peak_bytes > MIB


async def test_wall_time(real: RealRunner) -> None:
    script = "import time; print('up', flush=True); time.sleep(600)"
    result, output = await run(real, python(real, script, limits=Limits(wall_seconds=3)))
    assert result.outcome is O.TIMED_OUT
    assert output == b"up\n"


async def test_wall_time_of_one_that_ignores_term(real: RealRunner) -> None:
    script = "import signal,time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    result, _ = await run(real, python(real, script, limits=Limits(wall_seconds=2)))
    assert result.outcome is O.TIMED_OUT
    assert result.wall_seconds < 60


async def test_infinite_output(real: RealRunner) -> None:
    script = "import sys\nwhile True: sys.stdout.write('flood ' * 2000)"
    result, output = await run(real, python(real, script, limits=Limits(output_bytes=MIB, wall_seconds=60)))
    assert result.outcome is O.OUTPUT_LIMIT
    assert len(output) == MIB == result.output_bytes


@pytest.mark.parametrize("outcome", [O.CANCELLED, O.HALTED, O.LEASE_LOST])
async def test_ended_from_outside(real: RealRunner, outcome: RunOutcome) -> None:
    script = (
        "import signal, sys, time\n"
        "signal.signal(15, lambda *_: (print('bye', flush=True), sys.exit(0)))\n"
        "print('up', flush=True)\n"
        "time.sleep(600)\n"
    )
    async with lab(real, python(real, script)) as made:
        going = asyncio.create_task(made.execution.run())
        await until(lambda: made.output() == b"up\n")
        made.execution.stop(outcome)
        result = await asyncio.wait_for(going, 30)
        assert result.outcome is outcome
        # Only a cancelled agent is asked first.
        assert made.output() == (b"up\nbye\n" if outcome is O.CANCELLED else b"up\n")


async def test_the_engine_no_longer_knows_it(real: RealRunner) -> None:
    end = await asyncio.wait_for(real.runner.attach("0" * 64).wait(), 30)
    assert end.gone
    assert judge(None, end, None)[0] is O.RUNTIME_GONE


async def test_what_cannot_start(real: RealRunner) -> None:
    result, _ = await run(real, spec_of(image="example.com/none:1"))
    assert result.outcome is O.IMAGE_MISSING
    result, _ = await run(real, spec_of(image=real.image, image_digest="sha256:" + "0" * 64))
    assert result.outcome is O.IMAGE_MISSING
    result, _ = await run(real, spec_of(image=real.image, entrypoint=("/none",)))
    assert result.outcome is O.START_FAILED
    assert "/none" in result.detail


async def test_an_image_from_scratch_runs(real: RealRunner) -> None:
    """One static binary, no shell, no libc, no mount points; the guest stands in for an agent."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(GUEST, "agent")
    await real.engine.call(
        lambda client: client.api.import_image_from_data(
            archive.getvalue(), repository="awgp-test/scratch", tag="1", changes=['CMD ["/agent", "/none"]']
        )
    )
    result, output = await run(real, spec_of(image="awgp-test/scratch:1"))
    assert (result.outcome, result.exit_code) == (O.FAILED_EXIT, 125)
    assert b"/none/guest.json" in output


async def test_the_image_says_what_runs_unless_the_spec_does(real: RealRunner) -> None:
    changes = ['ENTRYPOINT ["python3", "-c"]', "CMD [\"import os; print(os.environ['WHO'], os.getcwd())\"]"]
    changes += ["ENV WHO=image", "WORKDIR /usr"]

    def build(client: object) -> None:
        container = client.containers.create(real.image)  # type: ignore[attr-defined]
        container.commit("awgp-test/commands", "1", changes="\n".join(changes))
        container.remove()

    await real.engine.call(build)
    image = "awgp-test/commands:1"
    assert (await run(real, spec_of(image=image)))[1] == b"image /usr\n"
    _, output = await run(real, spec_of(image=image, env={"WHO": "spec"}))
    assert output == b"spec /usr\n"
    _, output = await run(real, spec_of(image=image, command=("print('given')",)))
    assert output == b"given\n"
