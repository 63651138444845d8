"""What runtimes report over a real link becomes rows; what they may not report is refused and audited."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from models.domain.work_item import WorkItemStatus
from models.services import enrolment, lifecycle, run_logs, settlement, work_items
from models.services.run_backend import RunBackend
from models.storage.blobs import BlobStore
from models.storage.cache import Cache
from models.storage.db import Database
from sandbox.link.backend import ConnectedRuntime, KillOrder, LinkRefusedError
from sandbox.link.messages import KillReason, LogRecord, OutputStream, Placed, RunRef, RuntimeFacts
from sandbox.spec import Artifact, RunOutcome, RunResult
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.runs import audited, claim, claimed, item_of, mint, new_runtime, outlive_lease, row_of
from tests.fixtures.valkey import ValkeyServer
from tests.fixtures.work import Work, control

NOW = datetime(2026, 11, 24, tzinfo=UTC)
OK = RunResult(outcome=RunOutcome.SUCCEEDED, exit_code=0, wall_seconds=2.5, started_at=NOW, ended_at=NOW)


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(f"file://{tmp_path}/blobs")


@pytest.fixture
async def cache(valkey: ValkeyServer) -> AsyncIterator[Cache]:
    opened = Cache(valkey.url, "tenant-key")
    yield opened
    await opened.close()


@pytest.fixture
def backend(db: Database, blobs: BlobStore, cache: Cache) -> RunBackend:
    return RunBackend(db, blobs, cache)


def record(offset: int, text: bytes) -> LogRecord:
    data = base64.b64encode(text).decode()
    return LogRecord(offset=offset, stream=OutputStream.STDOUT, at=NOW, data_b64=data)


async def stream(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def test_a_token_enrols_once(db: Database, acme: Company) -> None:
    async with db.session_for(acme.admin) as session:
        token = await enrolment.create_token(session, acme.admin)
    first = await enrolment.enrol(db, token, "one", b"k" * 32)
    assert await enrolment.enrol(db, token, "one", b"k" * 32) == first
    with pytest.raises(LinkRefusedError, match="used before"):
        await enrolment.enrol(db, token, "two", b"x" * 32)
    with pytest.raises(LinkRefusedError, match="not known"):
        await enrolment.enrol(db, "no such token at all", "two", b"x" * 32)
    assert len(await audited(db, acme, "runtime.enrolment_refused")) == 1
    assert await enrolment.public_key(db, first.runtime_id, acme.id) == b"k" * 32


async def test_an_old_token_enrols_nobody(db: Database, database: TestDatabase, acme: Company) -> None:
    async with db.session_for(acme.admin) as session:
        token = await enrolment.create_token(session, acme.admin)
    with database.admin() as admin:
        admin.execute("update enrolment_tokens set expires_at = now() - interval '1 second'")
    with pytest.raises(LinkRefusedError, match="too old"):
        await enrolment.enrol(db, token, "late", b"k" * 32)
    assert len(await audited(db, acme, "runtime.enrolment_refused")) == 1


async def test_another_tenants_name_is_refused_and_the_owner_knows(
    db: Database, backend: RunBackend, acme: Company, globex: Company
) -> None:
    runtime = await new_runtime(db, acme)
    assert await backend.public_key(runtime.runtime_id, globex.id) is None
    await backend.on_refused(runtime.runtime_id, globex.id, "signature")
    assert (await audited(db, acme, "runtime.refused"))[0]["claimed_tenant_id"] == str(globex.id)
    assert await audited(db, globex, "runtime.refused") == []


async def test_a_flood_under_a_runtimes_name_is_one_event_a_minute_and_the_rest_noise(
    db: Database, database: TestDatabase, backend: RunBackend, acme: Company, globex: Company
) -> None:
    runtime = await new_runtime(db, acme)
    other = await new_runtime(db, acme)
    for _ in range(4):
        await asyncio.gather(*(backend.on_refused(runtime.runtime_id, acme.id, "signature") for _ in range(5)))
    await backend.on_refused(runtime.runtime_id, globex.id, "signature")
    await backend.on_refused(other.runtime_id, acme.id, "signature")
    assert len(await audited(db, acme, "runtime.refused")) == 3
    with database.admin() as admin:
        row = admin.execute("select sum(seen) from noise where kind = 'runtime_refused'").fetchone()
        assert row is not None
        assert int(str(row[0])) == 19
        admin.execute("update operations set created_at = created_at - interval '1 minute'")
    await backend.on_refused(runtime.runtime_id, acme.id, "signature")
    assert len(await audited(db, acme, "runtime.refused")) == 4


async def test_a_runtime_that_executes_nothing_is_refused(db: Database, backend: RunBackend, acme: Company) -> None:
    runtime = await new_runtime(db, acme)
    null = ConnectedRuntime(runtime.runtime_id, acme.id, RuntimeFacts(runtime_version="0", null_runner=True), 1)
    with pytest.raises(LinkRefusedError):
        await backend.on_hello(null, [])


async def test_a_run_from_its_claim_to_its_end(
    db: Database, backend: RunBackend, blobs: BlobStore, acme: Company, work: Work
) -> None:
    runtime = await new_runtime(db, acme)
    item, ref = await claimed(db, work, acme, runtime)
    await backend.on_placed(runtime, Placed(run_id=ref.run_id, attempt=1, accepted=True))
    for _ in range(2):
        await backend.on_started(runtime, ref, "c0ffee")
    assert (await row_of(db, acme, ref.run_id)).status == "running"
    await backend.on_log(runtime, ref, [record(0, b"hello "), record(6, b"world")])
    report = b"the report"
    digest = hashlib.sha256(report).hexdigest()
    await backend.store_blob(runtime, digest, stream(report))
    gone = Artifact(path="gone.txt", sha256="0" * 64, size=1)
    kept = Artifact(path="report.txt", sha256=digest, size=len(report))
    result = OK.model_copy(update={"artifacts": (kept, gone)})
    for _ in range(2):
        await backend.on_ended(runtime, ref, result)
    row = await row_of(db, acme, ref.run_id)
    assert (row.status, row.outcome, row.log_offset) == ("ended", "succeeded", 11)
    assert len(await audited(db, acme, "run.ended")) == 1
    assert await audited(db, acme, "run.stale_runtime") == []
    async with db.tenant_session(acme.id) as session:
        ended = await settlement.finish(session, control(acme.id), item.id)
        again = await settlement.finish(session, control(acme.id), item.id)
    assert (ended.status, again.status) == ("succeeded", "succeeded")
    assert ended.cost_nano == 100_000
    assert "gone.txt" in (row.result or {})["detail"]
    pieces = [piece async for piece in run_logs.read(db, blobs, None, acme.requester, item.id)]
    assert b"".join(piece.data for piece in pieces) == b"hello world"


async def test_naming_another_companys_file_as_an_artifact_does_not_open_it(
    db: Database, backend: RunBackend, blobs: BlobStore, acme: Company, work: Work
) -> None:
    runtime = await new_runtime(db, acme)
    item, ref = await claimed(db, work, acme, runtime)
    secret = await blobs.put(b"of another company")
    stolen = Artifact(path="mine.txt", sha256=secret, size=len(b"of another company"))
    await backend.on_ended(runtime, ref, OK.model_copy(update={"artifacts": (stolen,)}))
    async with db.session_for(acme.requester) as session:
        assert await work_items.files(session, acme.requester, item.id, "out") == []


async def test_a_report_of_who_has_no_lease_changes_nothing(
    db: Database, database: TestDatabase, backend: RunBackend, acme: Company, work: Work
) -> None:
    lost, other = await new_runtime(db, acme, "lost"), await new_runtime(db, acme, "other")
    item, ref = await claimed(db, work, acme, lost)
    outlive_lease(database, ref.run_id)
    from tests.models.services.test_leases import lose

    await lose(db, acme, ref)
    await mint(db, acme, item.id)
    assert (await claim(db, other, ref.run_id, 2)).state == "claimed"
    orders = await backend.on_hello(lost, [ref])
    assert orders == [KillOrder(ref, KillReason.LEASE_LOST)]
    await backend.on_started(lost, ref, "dead")
    assert await backend.on_log(lost, ref, [record(0, b"late")]) == 4
    await backend.on_ended(lost, ref, OK)
    row = await row_of(db, acme, ref.run_id)
    assert (row.status, row.attempt, row.runtime_id, row.log_offset) == ("claimed", 2, other.runtime_id, 0)
    assert len(await audited(db, acme, "run.stale_runtime")) == 1


async def test_what_was_never_taken_is_open_again_when_its_runtime_is_back(
    db: Database, backend: RunBackend, acme: Company, work: Work
) -> None:
    runtime = await new_runtime(db, acme)
    item, ref = await claimed(db, work, acme, runtime)
    assert list(await backend.on_hello(runtime, [])) == []
    assert (await row_of(db, acme, ref.run_id)).status == "queued"
    assert (await item_of(db, acme, item.id)).status == WorkItemStatus.QUEUED
    assert (await mint(db, acme, item.id)).attempt == 2


async def test_what_was_taken_stays_its_own(db: Database, backend: RunBackend, acme: Company, work: Work) -> None:
    runtime = await new_runtime(db, acme)
    _, ref = await claimed(db, work, acme, runtime)
    await backend.on_placed(runtime, Placed(run_id=ref.run_id, attempt=1, accepted=True))
    assert list(await backend.on_hello(runtime, [ref])) == []
    assert list(await backend.on_hello(runtime, [])) == []
    assert (await row_of(db, acme, ref.run_id)).status == "claimed"


@pytest.mark.parametrize("outcome", [RunOutcome.NOT_STARTED, RunOutcome.LEASE_LOST])
async def test_what_did_not_run_is_open_for_anyone(
    db: Database, backend: RunBackend, acme: Company, work: Work, outcome: RunOutcome
) -> None:
    runtime = await new_runtime(db, acme)
    _, ref = await claimed(db, work, acme, runtime)
    await backend.on_ended(runtime, ref, RunResult(outcome=outcome))
    row = await row_of(db, acme, ref.run_id)
    assert (row.status, row.attempt, row.runtime_id) == ("queued", 1, None)


async def test_a_refused_placement_is_open_for_anyone(
    db: Database, backend: RunBackend, acme: Company, work: Work
) -> None:
    runtime = await new_runtime(db, acme)
    _, ref = await claimed(db, work, acme, runtime)
    await backend.on_placed(runtime, Placed(run_id=ref.run_id, attempt=1, accepted=False, error="no free place"))
    assert (await row_of(db, acme, ref.run_id)).status == "queued"


async def test_only_inputs_of_live_runs_are_read(
    db: Database, backend: RunBackend, blobs: BlobStore, acme: Company, globex: Company, work: Work
) -> None:
    runtime, foreign = await new_runtime(db, acme), await new_runtime(db, globex)
    digest = await blobs.put(b"secret")
    assert await backend.open_blob(runtime, digest) is None
    assert await backend.open_blob(foreign, digest) is None
    with pytest.raises(LinkRefusedError):
        await backend.store_blob(runtime, digest, stream(b"secret"))


async def test_closing_a_live_run_kills_it(db: Database, backend: RunBackend, acme: Company, work: Work) -> None:
    runtime = await new_runtime(db, acme)
    item, ref = await claimed(db, work, acme, runtime)
    async with db.tenant_session(acme.id) as session:
        await lifecycle.close(session, control(acme.id), item.id, WorkItemStatus.CANCELLED, "no longer wanted")
    orders = await backend.orders(runtime, [ref])
    assert orders == [KillOrder(ref, KillReason.CANCELLED)]
    await backend.on_ended(runtime, ref, RunResult(outcome=RunOutcome.CANCELLED))
    async with db.tenant_session(acme.id) as session:
        assert (await settlement.finish(session, control(acme.id), item.id)).status == "cancelled"


async def test_output_is_durable_before_it_is_acknowledged(
    db: Database, backend: RunBackend, blobs: BlobStore, acme: Company, work: Work
) -> None:
    runtime = await new_runtime(db, acme)
    item, ref = await claimed(db, work, acme, runtime)
    acknowledged: list[int] = []

    async def note(_runtime: UUID, _run: RunRef, offset: int) -> None:
        acknowledged.append(offset)

    backend.acknowledge_by(note)
    assert await backend.on_log(runtime, ref, [record(0, b"a" * 10)]) == 0
    async with asyncio.timeout(10):
        while acknowledged != [10]:  # noqa: ASYNC110 - a list is what the backend tells
            await asyncio.sleep(0.02)
    big = [record(10 + n * 1000, b"b" * 1000) for n in range(300)]
    assert await backend.on_log(runtime, ref, big) == 10 + 300_000
    # Said twice, also through another broker: kept once.
    other = RunBackend(db, blobs, None)
    assert await other.on_log(runtime, ref, [record(5, b"a" * 5), record(10, b"b" * 10)]) == 300_010
    await other.on_log(runtime, ref, [record(300_010, b"end")])
    await other.on_gone(runtime)
    await backend.on_gone(runtime)
    await backend.on_ended(runtime, ref, OK)
    pieces = [piece async for piece in run_logs.read(db, blobs, None, acme.requester, item.id)]
    assert b"".join(piece.data for piece in pieces) == b"a" * 10 + b"b" * 300_000 + b"end"
    rest = [piece async for piece in run_logs.read(db, blobs, None, acme.requester, item.id, after="1.300007")]
    assert b"".join(piece.data for piece in rest) == b"bbbend"


@pytest.mark.parametrize("redis_is_there", [True, False])
async def test_a_reader_follows_the_tail(
    db: Database, blobs: BlobStore, cache: Cache, acme: Company, holding: Company, work: Work, redis_is_there: bool
) -> None:
    used = cache if redis_is_there else Cache("redis://127.0.0.1:1/0", "key")
    backend = RunBackend(db, blobs, used)
    runtime = await new_runtime(db, acme)
    item, ref = await claimed(db, work, acme, runtime)
    readers = [
        asyncio.create_task(collect(run_logs.read(db, blobs, used, who, item.id)))
        for who in (acme.requester, holding.auditor)
    ]
    expected, offset = b"", 0
    for number in range(20):
        text = f"line {number}\n".encode()
        await backend.on_log(runtime, ref, [record(offset, text)])
        expected, offset = expected + text, offset + len(text)
        await asyncio.sleep(0.03)
    await backend.on_ended(runtime, ref, OK)
    async with asyncio.timeout(30):
        assert await asyncio.gather(*readers) == [expected, expected]
    await used.close()


async def collect(pieces: AsyncIterator[run_logs.LogPiece]) -> bytes:
    found = b""
    async for piece in pieces:
        found += piece.data
    return found


async def test_a_tenants_redis_user_sees_its_own_keys_alone(cache: Cache, acme: Company, globex: Company) -> None:
    from redis.asyncio import Redis
    from redis.exceptions import NoPermissionError

    await cache.publish(acme.id, "kills")
    name, password = cache.user_of(acme.id)
    port = cache._admin.connection_pool.connection_kwargs["port"]  # pyright: ignore[reportPrivateUsage]
    async with Redis(port=port, username=name, password=password) as client:
        await client.set(f"t:{acme.id}:x", "1")
        for attempt in (
            client.get(f"t:{globex.id}:x"),
            client.publish(f"t:{globex.id}:kills", ""),
            client.keys("*"),
            client.execute_command("ACL", "LIST"),
            client.flushall(),
        ):
            with pytest.raises(NoPermissionError):
                await attempt


async def test_a_bell_rings_across_caches(valkey: ValkeyServer, cache: Cache, acme: Company, globex: Company) -> None:
    other = Cache(valkey.url, "tenant-key")
    async with cache.listen(acme.id, "kills") as bell, cache.listen(globex.id, "kills") as foreign:
        rung = False
        for _ in range(50):
            await other.publish(acme.id, "kills")
            rung = rung or await bell.wait(0.1)
        assert rung
        assert not await foreign.wait(0.05)
    with contextlib.suppress(Exception):
        await other.close()
