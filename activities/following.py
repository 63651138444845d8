"""`follow_run` watches a run's row to its end; `end_lost_run` says that a run is gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import structlog
from temporalio import activity

from activities.signatures import FollowOutput, FollowState, RunInput
from models.domain.principal import service_principal
from models.domain.run import RunStatus
from models.repositories import runs as rows
from models.rules.waiting import Waiting
from models.services import leases, runs
from models.services.leases import LostState
from models.services.operations import once
from models.storage.cache import Bell, Cache
from models.storage.db import Database
from sandbox.link.messages import KillReason

HEARTBEAT_SECONDS = 10
"""A third of the heartbeat timeout."""
POLL_SECONDS = 2.0
"""What pub/sub did not bring is seen after this."""

log = structlog.get_logger("following")


class Following:
    """Needs the database alone: any broker can follow any run.

    Args:
        cache: Makes it quicker; None polls.
    """

    def __init__(self, db: Database, cache: Cache | None) -> None:
        self._db = db
        self._cache = cache

    @activity.defn(name="follow_run")
    async def follow_run(self, given: RunInput) -> FollowOutput:
        """Watch the row until the attempt is ended, given back, or its lease and the grace are over.

        Only a cancellation that was asked for ends the run: it is written on its row. A worker that shuts down, a reset
        and `not_found` merely let go.
        """
        beats = asyncio.create_task(_beat())
        try:
            async with self._bell(given) as bell:
                while True:
                    found = await self._look(given)
                    if found is not None:
                        return found
                    await bell.wait(POLL_SECONDS)
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            if details is not None and details.cancel_requested:
                await asyncio.shield(self._cancel(given))
            raise
        finally:
            beats.cancel()

    @asynccontextmanager
    async def _bell(self, given: RunInput) -> AsyncGenerator[Bell]:
        if self._cache is None:
            yield Bell()
            return
        async with self._cache.listen(given.tenant_id, f"run:{given.run_id}") as bell:
            yield bell

    async def _look(self, given: RunInput) -> FollowOutput | None:
        try:
            async with self._db.tenant_session(given.tenant_id) as session:
                run = await rows.get(session, given.run_id)
                if run is None or run.tenant_id != given.tenant_id:
                    return FollowOutput(state=FollowState.ENDED, words="there is no such run")
                if run.status == RunStatus.ENDED:
                    return FollowOutput(state=FollowState.ENDED, outcome=run.outcome or "")
                if run.status == RunStatus.QUEUED and run.waiting == Waiting.SUSPENDED:
                    return FollowOutput(state=FollowState.SUSPENDED, words="the run waits for people")
                if run.status == RunStatus.QUEUED:
                    return FollowOutput(state=FollowState.NOT_STARTED, words="the run is open for another attempt")
                if run.attempt != given.attempt:
                    return FollowOutput(state=FollowState.GONE, words=f"the run is in attempt {run.attempt}")
                if await rows.lease_is_over(session, run):
                    return FollowOutput(state=FollowState.GONE, words="its lease and the grace are over")
        except Exception as error:
            # A database that is away says nothing about the run.
            log.warning("not_looking", run=str(given.run_id), why=str(error)[:200])
        return None

    async def _cancel(self, given: RunInput) -> None:
        principal = service_principal("broker", given.tenant_id)
        async with self._db.session_for(principal) as session:
            await runs.request_kill(session, principal, given.work_item_id, KillReason.CANCELLED)
        if self._cache is not None:
            await self._cache.publish(given.tenant_id, "kills")


class LostRuns:
    """Runs at the control worker."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @activity.defn(name="end_lost_run")
    async def end_lost_run(self, given: RunInput) -> FollowOutput:
        """Give the attempt up if the database's clock says so.

        `gone`: read the item; it is `queued` (mint anew), or the run lives after all (`words` says which).
        """
        principal = service_principal("control", given.tenant_id)
        async with self._db.session_for(principal) as session:

            async def end() -> FollowOutput:
                found = await leases.end_lost(session, principal, given.run_id, given.attempt)
                if found is not LostState.ENDED:
                    return FollowOutput(state=FollowState.GONE, words=found.value)
                run = await rows.get(session, given.run_id)
                return FollowOutput(state=FollowState.ENDED, outcome=run.outcome or "" if run else "")

            return await once(session, given.tenant_id, given.op_id, FollowOutput, end)


async def _beat() -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            activity.heartbeat()
            await asyncio.sleep(HEARTBEAT_SECONDS)
