"""The control plane behind the runtimes' endpoint: `sandbox.link.backend.RuntimeBackend` over PostgreSQL and blobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.principal import Principal, service_principal
from models.domain.run import RunStatus
from models.repositories import runs as rows
from models.repositories import runtimes as runtime_rows
from models.repositories import tenants as tenant_rows
from models.services import audit, enrolment, leases, lifecycle, uploads
from models.services.log_writer import LogWriter, OnDurable
from models.services.run_ends import record_end
from models.services.runs import is_held_by
from models.services.usage_events import UsageEvents
from models.storage.blobs import BlobStore
from models.storage.cache import Cache
from models.storage.db import Database
from sandbox.link.backend import ConnectedRuntime, KillOrder, LinkRefusedError
from sandbox.link.messages import EnrolResponse, KillReason, LogRecord, Placed, RunRef, Used
from sandbox.spec import RunResult, RunSpec


class RunBackend:
    """Writes what runtimes report; every write is fenced by (run, attempt, runtime).

    Args:
        allow_null_runner: Development only: let runtimes connect that execute nothing.
    """

    def __init__(self, db: Database, blobs: BlobStore, cache: Cache | None, *, allow_null_runner: bool = False) -> None:
        self._db = db
        self._blobs = blobs
        self._cache = cache
        self._allow_null_runner = allow_null_runner
        self.logs = LogWriter(db, blobs, cache)
        self._usage = UsageEvents(db, cache)
        self._said_stale: set[tuple[UUID, RunRef]] = set()

    def acknowledge_by(self, on_durable: OnDurable) -> None:
        """Where the acknowledgement of output goes that became durable after it was taken in."""
        self.logs.on_durable = on_durable

    async def enrol(self, token: str, name: str, public_key: bytes) -> EnrolResponse:
        """Burn the one-time token and record the key, or raise `LinkRefusedError`."""
        return await enrolment.enrol(self._db, token, name, public_key)

    async def public_key(self, runtime_id: UUID, tenant_id: UUID) -> bytes | None:
        """The key of exactly this runtime of this tenant; None refuses."""
        return await enrolment.public_key(self._db, runtime_id, tenant_id)

    async def on_refused(self, runtime_id: UUID, tenant_id: UUID, reason: str) -> None:
        """Somebody called in under this name and could not prove it: audited."""
        await enrolment.record_refused(self._db, runtime_id, tenant_id, reason)

    async def on_hello(self, runtime: ConnectedRuntime, live: Sequence[RunRef]) -> Sequence[KillOrder]:
        """Compare what the runtime says it has with the rows; answers what it must end.

        What the rows give to it, and it never took, is open for anyone again: it has no other connection over which
        that placement could still reach it.
        """
        if runtime.facts.null_runner and not self._allow_null_runner:
            raise LinkRefusedError("this installation takes no runtime that executes nothing")
        principal = _principal(runtime)
        async with self._db.session_for(principal) as session:
            await runtime_rows.heard(
                session, runtime.tenant_id, runtime.runtime_id, runtime.facts.model_dump(mode="json")
            )
            held = await rows.of_runtime(session, runtime.runtime_id)
        for run in held:
            never_taken = run.placed_at is None and run.status == RunStatus.CLAIMED
            if never_taken and RunRef(run_id=run.id, attempt=run.attempt) not in live:
                why = "its runtime came back and had never taken it"
                async with self._db.session_for(principal) as session:
                    await leases.give_back(session, principal, run.id, run.attempt, runtime.runtime_id, why)
        return await self.orders(runtime, live)

    async def orders(self, runtime: ConnectedRuntime, live: Sequence[RunRef]) -> list[KillOrder]:
        """Which of these runs the runtime must end: not its any more, or to be ended anyway. The first is audited."""
        orders: list[KillOrder] = []
        principal = _principal(runtime)
        for ref in live:
            async with self._db.session_for(principal) as session:
                run = await rows.get(session, ref.run_id)
                own = run is not None and run.attempt == ref.attempt and run.runtime_id == runtime.runtime_id
                if run is not None and own and run.status == RunStatus.ENDED:
                    continue  # its result is here, only the acknowledgement was lost
                if run is not None and is_held_by(run, runtime.runtime_id, ref.attempt):
                    if run.kill_reason is not None:
                        orders.append(KillOrder(ref, KillReason(run.kill_reason)))
                        continue
                    if not await rows.lease_is_over(session, run, grace=0):
                        continue
                self._record_stale(session, principal, runtime.runtime_id, ref, "still ran it")
                orders.append(KillOrder(ref, KillReason.LEASE_LOST))
        return orders

    def _record_stale(
        self, session: AsyncSession, principal: Principal, runtime_id: UUID, ref: RunRef, did: str
    ) -> None:
        """Audit, once a connection's life, that a runtime without the lease did something."""
        if (runtime_id, ref) in self._said_stale:
            return
        self._said_stale.add((runtime_id, ref))
        audit.record(
            session,
            principal,
            kind="run.stale_runtime",
            subject=f"run/{ref.run_id}",
            summary=f"A runtime without the lease of attempt {ref.attempt} {did}; refused",
            data={"runtime_id": str(runtime_id), "attempt": ref.attempt},
        )

    async def on_heartbeat(self, runtime: ConnectedRuntime, live: Sequence[RunRef]) -> None:
        """Note that it was heard."""
        async with self._db.tenant_session(runtime.tenant_id) as session:
            await runtime_rows.heard(session, runtime.tenant_id, runtime.runtime_id)

    async def on_gone(self, runtime: ConnectedRuntime) -> None:
        """Its connection ended: nothing of its output stays in memory here."""
        await self.logs.let_go(runtime.runtime_id)
        self._usage.forget(runtime.runtime_id)
        self._said_stale = {said for said in self._said_stale if said[0] != runtime.runtime_id}

    async def on_placed(self, runtime: ConnectedRuntime, placed: Placed) -> None:
        """The runtime has the placement on its disk, or refuses it: then it is open for anyone."""
        principal = _principal(runtime)
        async with self._db.session_for(principal) as session:
            if not placed.accepted:
                why = placed.error or "refused by the runtime"
                await leases.give_back(session, principal, placed.run_id, placed.attempt, runtime.runtime_id, why)
                return
            run = await rows.lock(session, placed.run_id)
            if run is not None and is_held_by(run, runtime.runtime_id, placed.attempt) and run.placed_at is None:
                run.placed_at = await tenant_rows.database_now(session)
                session.add(run)

    async def on_started(self, runtime: ConnectedRuntime, run: RunRef, container_id: str) -> None:
        """Its container runs."""
        principal = _principal(runtime)
        async with self._db.session_for(principal) as session:
            row = await rows.lock(session, run.run_id)
            if row is None or not is_held_by(row, runtime.runtime_id, run.attempt):
                self._record_stale(session, principal, runtime.runtime_id, run, "started it")
                return
            if row.started_at is not None:
                return
            row.status = RunStatus.RUNNING.value
            row.started_at = await tenant_rows.database_now(session)
            row.placed_at = row.placed_at or row.started_at
            session.add(row)
            audit.record(
                session,
                principal,
                kind="run.started",
                subject=f"run/{row.id}",
                summary=f"Attempt {row.attempt} runs in its sandbox",
                work_item_id=row.work_item_id,
                data={"attempt": row.attempt, "runtime_id": str(runtime.runtime_id), "container": container_id[:64]},
            )
        await self._tell(runtime.tenant_id, run.run_id, row.work_item_id)

    async def on_log(self, runtime: ConnectedRuntime, run: RunRef, records: Sequence[LogRecord]) -> int:
        """Take output in; answers the offset before which all is durable."""
        return await self.logs.add(runtime.tenant_id, runtime.runtime_id, run, records)

    async def on_used(self, runtime: ConnectedRuntime, used: Used) -> None:
        """Tell the item's timeline what its sandbox has used, now and then."""
        await self._usage.take(runtime, used)

    async def on_ended(self, runtime: ConnectedRuntime, run: RunRef, result: RunResult) -> None:
        """Commit result, files, audit and the workflow's wake-up in one transaction; repeatable."""
        await self.logs.finish(run)
        principal = _principal(runtime)
        async with self._db.session_for(principal) as session:
            seen = await rows.get(session, run.run_id)
            if seen is None or seen.tenant_id != runtime.tenant_id:
                return
            item = await lifecycle.lock_work_item(session, seen.work_item_id)
            row = await rows.lock(session, run.run_id)
            if row is None or not is_held_by(row, runtime.runtime_id, run.attempt):
                same = row is not None and row.attempt == run.attempt and row.runtime_id == runtime.runtime_id
                if not same:
                    self._record_stale(session, principal, runtime.runtime_id, run, "reported its end")
                return
            kept = await _with_artifacts_that_were_brought(session, runtime.tenant_id, result)
            await self._usage.last(session, runtime, item.id, run, kept)
            await record_end(session, principal, item, row, kept)
        await self._tell(runtime.tenant_id, run.run_id, item.id)

    async def _tell(self, tenant_id: UUID, run_id: UUID, work_item_id: UUID) -> None:
        if self._cache is not None:
            await self._cache.publish(tenant_id, f"run:{run_id}")
            await self._cache.publish(tenant_id, f"item:{work_item_id}")

    async def open_blob(self, runtime: ConnectedRuntime, sha256: str) -> AsyncIterator[bytes] | None:
        """The content if a live run of this runtime names it as an input, else None."""
        async with self._db.tenant_session(runtime.tenant_id) as session:
            named = await rows.input_digests(session, runtime.tenant_id, runtime.runtime_id)
        if sha256 not in named:
            return None
        try:
            return await self._blobs.open(sha256)
        except FileNotFoundError:
            return None

    async def store_blob(self, runtime: ConnectedRuntime, sha256: str, chunks: AsyncIterator[bytes]) -> None:
        """Store an artifact of a live run, no larger than its runs may leave together.

        Raises:
            LinkRefusedError: The runtime has no live run, or this is more than any of them may leave.
        """
        async with self._db.tenant_session(runtime.tenant_id) as session:
            specs = await rows.specs_of_runtime(session, runtime.tenant_id, runtime.runtime_id)
        allowed = max((RunSpec.model_validate(spec).limits.artifact_bytes for spec in specs), default=-1)
        if allowed < 0:
            raise LinkRefusedError("no live run of this runtime could have made it")
        size = await self._blobs.put_stream(sha256, _at_most(chunks, allowed))
        async with self._db.session_for(_principal(runtime)) as session:
            await uploads.record_upload(session, _principal(runtime), uploads.Uploaded(sha256=sha256, size=size))


async def _with_artifacts_that_were_brought(session: AsyncSession, tenant_id: UUID, result: RunResult) -> RunResult:
    """INVARIANT: an artifact's bytes came from this tenant; the store is shared, and a digest opens nothing."""
    sizes = await uploads.sizes(session, tenant_id, {artifact.sha256 for artifact in result.artifacts})
    kept = tuple(artifact for artifact in result.artifacts if sizes.get(artifact.sha256) == artifact.size)
    if len(kept) == len(result.artifacts):
        return result
    missing = ", ".join(artifact.path for artifact in result.artifacts if artifact not in kept)
    detail = f"{result.detail}; artifacts never arrived: {missing}".removeprefix("; ")[:2000]
    return result.model_copy(update={"artifacts": kept, "detail": detail})


async def _at_most(chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    seen = 0
    async for chunk in chunks:
        seen += len(chunk)
        if seen > limit:
            raise LinkRefusedError(f"more than the {limit} bytes that a run may leave")
        yield chunk


def _principal(runtime: ConnectedRuntime) -> Principal:
    return service_principal("broker", runtime.tenant_id)
