import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from sandbox.bridge import Bridge
from sandbox.guest_frames import frame, json_frame
from sandbox.run_folder import RunFolder
from sandbox.spec import Limits
from tests.sandbox.guest_double import GuestDouble, output
from tests.sandbox.specs import folder_in

LIMITS = Limits(output_bytes=100_000, artifact_bytes=1000)


@contextlib.asynccontextmanager
async def bridge_on(
    folder: RunFolder, limits: Limits = LIMITS, lease: Callable[[], float] = lambda: 60.0
) -> AsyncGenerator[Bridge]:
    bridge = Bridge(folder, limits, lease)
    await bridge.start()
    try:
        yield bridge
    finally:
        await bridge.close()
        bridge.spool.close()


def outside(base: Path) -> set[Path]:
    return {item for item in base.rglob("*") if "artifacts" not in item.parts}


def socket_of(folder: RunFolder) -> Path:
    return folder.bridge / "guest.sock"


async def test_output_exit_and_artifacts_arrive_and_the_guest_is_let_go(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    async with bridge_on(folder) as bridge:
        guest = await GuestDouble.connect(socket_of(folder))
        assert guest.welcome == {"output_offset": 0, "artifacts_done": []}
        guest.writer.write(output(0, b"out") + output(3, b"err", 2))
        await guest.acked(6)
        guest.exited(0, 6)
        guest.artifact("report/a.txt", b"content")
        assert await guest.expect(b"C") == {"path": "report/a.txt"}
        guest.all_sent(1)
        await asyncio.wait_for(bridge.complete.wait(), 10)
        await bridge.finish()
        await guest.expect(b"F")
        digest = hashlib.sha256(b"content").hexdigest()
        assert bridge.intake.kept["report/a.txt"].sha256 == digest
        assert (folder.artifacts / digest).read_bytes() == b"content"
        await guest.close()


async def test_a_restarted_bridge_asks_for_what_it_lacks(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    async with bridge_on(folder):
        guest = await GuestDouble.connect(socket_of(folder))
        guest.writer.write(output(0, b"first"))
        await guest.acked(5)
        guest.artifact("a", b"1")
        await guest.expect(b"C")
    await guest.closed()
    await guest.close()
    async with bridge_on(folder) as bridge:
        guest = await GuestDouble.connect(socket_of(folder))
        assert guest.welcome == {"output_offset": 5, "artifacts_done": ["a"]}
        guest.writer.write(output(5, b" second"))
        await guest.acked(12)
        assert b"".join(r.data for r in bridge.spool.read(0, 100)) == b"first second"
        await guest.close()


@pytest.mark.parametrize("path", ["../../escape", "/etc/passwd", "a/../../b", ""])
async def test_no_path_leaves_the_folder(tmp_path: Path, path: str) -> None:
    folder = folder_in(tmp_path)
    before = outside(tmp_path)
    async with bridge_on(folder) as bridge:
        guest = await GuestDouble.connect(socket_of(folder))
        guest.artifact(path, b"evil")
        await guest.expect(b"C")
        assert bridge.intake.kept == {}
        assert path in bridge.intake.skipped
        await guest.close()
    new = {item.name for item in outside(tmp_path) - before}
    assert new <= {"output.bin", "output.idx", "guest.sock"}


async def test_artifacts_over_the_limit_are_refused_and_the_rest_kept(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    async with bridge_on(folder) as bridge:
        guest = await GuestDouble.connect(socket_of(folder))
        guest.artifact("big", b"x" * 900)
        await guest.expect(b"C")
        guest.artifact("more", b"x" * 101)
        await guest.expect(b"C")
        guest.artifact("small", b"x" * 100)
        await guest.expect(b"C")
        assert set(bridge.intake.kept) == {"big", "small"}
        assert "limit" in bridge.intake.skipped["more"]
        await guest.close()


@pytest.mark.parametrize(
    "speech",
    [
        frame(b"O", b"short"),
        output(7, b"a gap"),
        output(0, b"x", stream=9),
        b"O\xff\xff\xff\xff",
        frame(b"X", b"{not json"),
        frame(b"D", b"no head"),
        json_frame(b"E", path="x", sha256="0" * 64),
        json_frame(b"A", path="a", size=1) + frame(b"D", b"longer"),
        json_frame(b"A", path="a", size=1) + frame(b"D", b"x") + json_frame(b"E", path="a", sha256="0" * 64),
        json_frame(b"Z", artifacts=0, skipped=[]),
    ],
    ids=["short", "gap", "stream", "long", "json", "data", "end", "longer", "digest", "early end"],
)
async def test_nonsense_ends_its_connection_and_nothing_else(tmp_path: Path, speech: bytes) -> None:
    folder = folder_in(tmp_path)
    async with bridge_on(folder) as bridge:
        guest = await GuestDouble.connect(socket_of(folder))
        guest.writer.write(speech)
        await guest.closed()
        await guest.close()
        better = await GuestDouble.connect(socket_of(folder))
        better.writer.write(output(0, b"fine"))
        await better.acked(4)
        assert not bridge.complete.is_set()
        assert bridge.intake.kept == {}
        await better.close()


async def test_too_much_output_is_noticed_and_cut(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    async with bridge_on(folder) as bridge:
        guest = await GuestDouble.connect(socket_of(folder))
        for part in range(3):
            guest.writer.write(output(part * 50_000, b"x" * 50_000))
        await asyncio.wait_for(bridge.over_limit.wait(), 10)
        assert bridge.spool.end == 100_000
        await guest.close()


async def test_the_socket_lies_deeper_than_a_unix_address_is_long(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    folder = folder_in(deep)
    async with bridge_on(folder):
        assert socket_of(folder).is_socket()


async def test_each_connection_and_each_renewal_tells_the_guest_what_is_left_of_the_lease(tmp_path: Path) -> None:
    folder, left = folder_in(tmp_path), 60.0
    async with bridge_on(folder, lease=lambda: left) as bridge:
        bridge.tell_lease()  # Nobody is there: nothing to do.
        guest = await GuestDouble.connect(socket_of(folder))
        assert await guest.expect(b"L") == {"seconds": 60.0}
        left = 118.5
        bridge.tell_lease()
        assert await guest.expect(b"L") == {"seconds": 118.5}
        await guest.close()
        left = 3.0
        again = await GuestDouble.connect(socket_of(folder))
        assert await again.expect(b"L") == {"seconds": 3.0}
        await again.close()
