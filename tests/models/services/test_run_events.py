"""What a run does stands in its item's live timeline: started, said, used, left behind, ended; each once."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from models.repositories import item_events
from models.services.run_backend import RunBackend
from models.storage.blobs import BlobStore
from models.storage.db import Database
from models.tables.events import ItemEventRow
from models.tables.work import WorkItemRow
from sandbox.link.messages import LogRecord, OutputStream, RunRef, Used
from sandbox.spec import Artifact, RunOutcome, RunResult
from tests.fixtures.companies import Company
from tests.fixtures.runs import claimed, new_runtime
from tests.fixtures.work import Work

NOW = datetime(2026, 11, 24, tzinfo=UTC)
OK = RunResult(outcome=RunOutcome.SUCCEEDED, exit_code=0, wall_seconds=2.5, started_at=NOW, ended_at=NOW)


@pytest.fixture
def backend(db: Database, tmp_path: Path) -> RunBackend:
    return RunBackend(db, BlobStore(f"file://{tmp_path}/blobs"), None)


def record(offset: int, data: bytes, stream: OutputStream = OutputStream.STDOUT) -> LogRecord:
    return LogRecord(offset=offset, stream=stream, at=NOW, data_b64=base64.b64encode(data).decode())


async def told(db: Database, item: WorkItemRow, *kinds: str) -> list[ItemEventRow]:
    async with db.tenant_session(item.tenant_id) as session:
        rows = await item_events.after(session, item.id, 0, 1000)
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
    return [row for row in rows if row.kind in kinds]


async def content(data: bytes) -> AsyncIterator[bytes]:
    yield data


def used(ref: RunRef, at: datetime, cpu: float) -> Used:
    return Used(run_id=ref.run_id, attempt=ref.attempt, at=at, cpu_seconds=cpu, memory_bytes=1000)


async def test_a_run_from_its_start_to_its_end(db: Database, backend: RunBackend, acme: Company, work: Work) -> None:
    runtime = await new_runtime(db, acme)
    item, ref = await claimed(db, work, acme, runtime)
    digest = hashlib.sha256(b"report").hexdigest()
    result = OK.model_copy(update={"artifacts": (Artifact(path="a/r.txt", sha256=digest, size=6),)})
    for _ in range(2):
        await backend.on_started(runtime, ref, "c0ffee")
    await backend.on_log(runtime, ref, [record(0, b"hello")])
    await backend.store_blob(runtime, digest, content(b"report"))
    for _ in range(2):
        await backend.on_ended(runtime, ref, result)
    rows = await told(db, item, "run", "output", "resource", "file")
    assert [(row.kind, row.data.get("what")) for row in rows] == [
        ("run", "started"),
        ("output", None),
        ("resource", None),
        ("file", None),
        ("run", "ended"),
    ]
    assert rows[2].data["wall_seconds"] == 2.5
    assert rows[2].data["last"] is True
    assert rows[3].data == {"direction": "out", "path": "a/r.txt", "sha256": digest, "size": 6}
    assert rows[4].data["details"]["outcome"] == "succeeded"


async def test_output_is_one_event_a_flush_and_stream(
    db: Database, backend: RunBackend, acme: Company, work: Work
) -> None:
    runtime = await new_runtime(db, acme)
    item, ref = await claimed(db, work, acme, runtime)
    said = [record(offset, b"abc") for offset in range(0, 30, 3)]
    said += [record(30, b"\xff" * 5, OutputStream.STDERR), record(35, b"x" * 9000)]
    await backend.on_log(runtime, ref, said)
    await backend.logs.finish(ref)
    await backend.on_log(runtime, ref, [record(9035, b"more")])
    await backend.logs.finish(ref)
    out, err, more = (row.data for row in await told(db, item, "output"))
    assert (out["stream"], out["start"], out["end"], out["bytes"]) == ("stdout", 0, 9035, 9030)
    assert out["text"] == "abc" * 10 + "x" * 4066
    assert out["shortened"] is True
    assert (err["stream"], err["text"], err["shortened"]) == ("stderr", "\N{REPLACEMENT CHARACTER}" * 5, False)
    assert (more["text"], more["start"]) == ("more", 9035)


async def test_use_is_told_now_and_then_and_the_newest_counts(
    db: Database, backend: RunBackend, acme: Company, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, other = await new_runtime(db, acme, "one"), await new_runtime(db, acme, "other")
    item, ref = await claimed(db, work, acme, runtime)
    await backend.on_used(other, used(ref, NOW, 99.0))
    await backend.on_used(runtime, used(ref, NOW, 1.0))
    await backend.on_used(runtime, used(ref, NOW + timedelta(seconds=15), 2.0))
    monkeypatch.setattr("models.services.usage_events.EVERY_SECONDS", 0.0)
    await backend.on_used(runtime, used(ref, NOW - timedelta(seconds=1), 0.5))
    await backend.on_used(runtime, used(ref, NOW + timedelta(seconds=30), 3.0))
    rows = await told(db, item, "resource")
    assert [row.data["cpu_seconds"] for row in rows] == [1.0, 3.0]
    assert rows[0].data["memory_bytes"] == 1000
    assert rows[0].at == NOW
