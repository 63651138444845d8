"""Files that an agent saves in mid-run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox.artifact_intake import MAX_ARTIFACTS, ArtifactIntake
from sandbox.artifact_saving import MOST_AT_ONCE
from sandbox.guest_frames import ArtifactBegin, ArtifactEnd
from sandbox.spec import Artifact
from tests.sandbox.agent_world import World, world
from tests.sandbox.link_world import until


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, artifact_bytes=1000) as made:
        yield made


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def save(inside: World, path: str, data: object) -> tuple[int, dict[str, object]]:
    status, body = await inside.ask("PUT", f"/artifacts/{path}", data=data)
    return status, json.loads(body)


def stored(inside: World, path: str) -> bytes:
    return (inside.intake.folder / inside.intake.kept[path].sha256).read_bytes()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_saved_file_is_an_artifact_with_our_digest(inside: World, chunked: bool) -> None:
    status, answer = await save(inside, "reports/a%20b.md", pieces(b"he", b"llo") if chunked else b"hello")
    digest = hashlib.sha256(b"hello").hexdigest()
    assert (status, answer) == (201, {"path": "reports/a b.md", "sha256": digest, "size": 5})
    assert stored(inside, "reports/a b.md") == b"hello"
    assert not inside.upstream.arrived
    again = ArtifactIntake(inside.intake.folder, inside.folder.parent / "artifacts.jsonl", 1000)
    assert again.kept == inside.intake.kept, "a runtime that starts again does not know it"


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "%2e%2e/x", "/etc/passwd", "a//b", "a/./b", ".", "a/", "%ff", "a" * 1025]
)
async def test_a_path_stays_inside(inside: World, path: str) -> None:
    text = f"PUT /artifacts/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
    answer = await inside.raw(text.encode(), "awgp.sock")
    assert answer.startswith(b"HTTP/1.1 400"), answer
    assert not inside.intake.kept
    assert [path.name for path in inside.intake.folder.iterdir()] == []


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_limit_holds_for_all_together(inside: World, chunked: bool) -> None:
    assert (await save(inside, "one", b"x" * 600))[0] == 201
    status, answer = await save(inside, "two", pieces(b"x" * 300, b"x" * 101) if chunked else b"x" * 401)
    assert status == 413
    assert "400 bytes are left of the run's 1000" in str(answer["detail"]) or chunked
    assert (await save(inside, "two", b"x" * 400))[0] == 201
    assert sorted(inside.intake.kept) == ["one", "two"]


async def test_the_later_of_two_under_one_path_stands(inside: World) -> None:
    assert (await save(inside, "draft", b"x" * 900))[0] == 201
    first = inside.intake.kept["draft"].sha256
    assert (await save(inside, "draft", b"y" * 900))[0] == 201
    assert stored(inside, "draft") == b"y" * 900
    assert not (inside.intake.folder / first).exists(), "what was replaced still takes room"


async def test_what_another_path_needs_outlives_its_replacement(inside: World) -> None:
    await save(inside, "one", b"same")
    await save(inside, "two", b"same")
    await save(inside, "one", b"other")
    assert (stored(inside, "one"), stored(inside, "two")) == (b"other", b"same")


async def test_what_was_saved_goes_before_what_the_guest_brings(inside: World) -> None:
    await save(inside, "report", b"saved")
    inside.intake.begin(ArtifactBegin(path="report", size=4))
    inside.intake.data(b"left")
    assert inside.intake.end(ArtifactEnd(path="report", sha256=hashlib.sha256(b"left").hexdigest())) == "report"
    assert stored(inside, "report") == b"saved"


async def test_a_file_that_is_cut_off_is_none(inside: World) -> None:
    _, writer = await inside.dial("awgp.sock")
    writer.write(b"PUT /artifacts/cut HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nhalf")
    await writer.drain()
    await until(lambda: any(inside.intake.folder.iterdir()))
    writer.close()
    await until(lambda: not any(inside.intake.folder.iterdir()))
    assert not inside.intake.kept
    assert (await save(inside, "whole", b"x" * 1000))[0] == 201, "its bytes are still counted"


async def test_only_so_many_at_once(inside: World) -> None:
    held = [await inside.dial("awgp.sock") for _ in range(MOST_AT_ONCE)]
    for number, (_, writer) in enumerate(held):
        writer.write(b"PUT /artifacts/%d HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe" % number)
    await until(lambda: len(list(inside.intake.folder.iterdir())) == MOST_AT_ONCE)
    assert (await save(inside, "one-more", b"x"))[0] == 503
    for reader, writer in held:
        writer.write(b"llo")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 201")
        writer.close()
    assert len(inside.intake.kept) == MOST_AT_ONCE
    assert (await save(inside, "one-more", b"x"))[0] == 201


async def test_only_so_many_in_all(inside: World) -> None:
    for number in range(MAX_ARTIFACTS):
        path = str(number)
        inside.intake.kept[path] = Artifact(path=path, sha256="0" * 64, size=0)
    status, answer = await save(inside, "one-more", b"")
    assert (status, answer["detail"]) == (413, f"A run has {MAX_ARTIFACTS} artifacts at most.")
