"""A run's warrant as its credential: whoever shows it acts as that attempt of that run, while it lives.

The signature is checked by itself; everything that may change (attempt, lease, halts, the item's state) against a
copy of the rows that is at most 5 s old. INVARIANT: an older copy allows nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from models.domain.errors import DependencyAway, Forbidden, Unauthenticated, WarrantRefused
from models.domain.run import RunStatus
from models.domain.work_item import WorkItemStatus
from models.repositories import live_runs as rows
from models.services.halts import Epochs
from models.services.warrant_keys import WarrantVerifier
from models.storage.db import Database
from sandbox.spec import LlmGrant

COPY_SECONDS = 5.0
"""How old a copy may be that still allows something."""
RENEW_AFTER_SECONDS = 2.0
"""A copy this old is read anew behind the request that saw it, so that no request waits for PostgreSQL in turn."""
READ_SECONDS = 4.0
MOST_KEPT = 10_000


class RunClaims(BaseModel):
    """What a run warrant says of who shows it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    iss: str
    aud: str
    jti: UUID
    tenant: UUID
    assistant: UUID
    work_item: UUID
    run: UUID
    attempt: int
    reservation: UUID
    epochs: Epochs


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run as PostgreSQL held it when it was asked.

    Attributes:
        lease_ends: When its lease is over, on this process's monotonic clock; it can only be later than that.
        killing: Epochs of the halts that kill; one that rose since the warrant voids it, also when lifted since.
        halted: A halt is in force, be it one that lets runs go on.
        asked_at: When PostgreSQL was asked, on the monotonic clock.
    """

    tenant_id: UUID
    run_id: UUID
    work_item_id: UUID
    assistant_id: UUID
    status: RunStatus
    attempt: int
    warrant_id: UUID | None
    killed: bool
    item_status: WorkItemStatus
    cancelled: bool
    lease_ends: float
    killing: Epochs
    halted: bool
    reservation_id: UUID | None
    llm: LlmGrant | None
    asked_at: float


def verify_run_warrant(verifier: WarrantVerifier, token: str) -> RunClaims:
    """The claims of a token that the control worker signed for a run.

    Raises:
        Unauthenticated: It is none; `code` says what is wrong.
    """
    try:
        claims = RunClaims.model_validate(verifier.verify(token))
    except WarrantRefused as refusal:
        raise Unauthenticated("this is no warrant of a run: its signature does not hold", code="signature") from refusal
    except ValidationError as error:
        raise Unauthenticated("this is no warrant of a run: its claims cannot be read", code="claims") from error
    if claims.iss != "awgp" or claims.aud != "run":
        raise Unauthenticated(f"a warrant for {claims.aud[:40]!r} is no run's credential", code="audience")
    return claims


class RunWarrants:
    """Verifies each token once: signatures cost more than the rest of a request."""

    def __init__(self, verifier: WarrantVerifier, most: int = MOST_KEPT) -> None:
        self._verifier = verifier
        self._most = most
        self._known: OrderedDict[bytes, RunClaims] = OrderedDict()

    def claims(self, token: str) -> RunClaims:
        """The verified claims; what does not hold is never kept.

        Raises:
            Unauthenticated: It is no run's warrant.
        """
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is None:
            known = self._known[digest] = verify_run_warrant(self._verifier, token)
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        return known


class LiveRuns:
    """Copies of runs, each at most `COPY_SECONDS` old when it is answered."""

    def __init__(self, db: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._db = db
        self._clock = clock
        self._copies: OrderedDict[tuple[UUID, UUID], LiveRun] = OrderedDict()
        self._reading: dict[tuple[UUID, UUID], asyncio.Task[LiveRun]] = {}

    async def check(self, claims: RunClaims) -> LiveRun:
        """The run, if what the warrant says holds now.

        Raises:
            Forbidden: It does not; `code` says why: ended, attempt, warrant, halted, cancelled, lease or run.
            DependencyAway: PostgreSQL cannot be asked.
        """
        run = await self.get(claims.tenant, claims.run)
        found = why_not(run, claims, self._clock())
        if found is not None:
            # It may be the copy that lags: a claim a moment ago raised the attempt and wrote its warrant.
            if self._clock() - run.asked_at > 0.2 and found[0] in ("attempt", "warrant", "lease"):
                run = await self._read((claims.tenant, claims.run))
                found = why_not(run, claims, self._clock())
            if found is not None:
                raise Forbidden(found[1], code=found[0])
        return run

    async def get(self, tenant_id: UUID, run_id: UUID) -> LiveRun:
        """The run, from a copy that is young enough or from PostgreSQL.

        Raises:
            Forbidden: There is no such run.
            DependencyAway: The copy is too old, and PostgreSQL did not answer.
        """
        key = (tenant_id, run_id)
        copy = self._copies.get(key)
        if copy is not None:
            age = self._clock() - copy.asked_at
            if age > RENEW_AFTER_SECONDS:
                self._begin(key)
            if age <= COPY_SECONDS:
                return copy
        return await self._read(key)

    def forget(self, tenant_id: UUID, run_id: UUID) -> None:
        """Read it anew the next time."""
        self._copies.pop((tenant_id, run_id), None)

    async def _read(self, key: tuple[UUID, UUID]) -> LiveRun:
        return await asyncio.shield(self._begin(key))

    def _begin(self, key: tuple[UUID, UUID]) -> asyncio.Task[LiveRun]:
        """One read a run at a time, however many wait for it."""
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = asyncio.create_task(self._ask(key))
            task.add_done_callback(lambda done: self._done(key, done))
        return task

    def _done(self, key: tuple[UUID, UUID], task: asyncio.Task[LiveRun]) -> None:
        self._reading.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen here: those who waited have it too, and behind a young copy nobody does

    async def _ask(self, key: tuple[UUID, UUID]) -> LiveRun:
        tenant_id, run_id = key
        asked_at = self._clock()
        try:
            async with asyncio.timeout(READ_SECONDS), self._db.tenant_session(tenant_id) as session:
                row = await rows.read(session, tenant_id, run_id)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            raise DependencyAway("PostgreSQL did not say whether the run lives", dependency="postgres") from error
        if row is None:
            self._copies.pop(key, None)
            raise Forbidden("there is no such run", code="run")
        self._copies[key] = run = LiveRun(
            tenant_id=tenant_id,
            run_id=run_id,
            work_item_id=row.work_item_id,
            assistant_id=row.assistant_id,
            status=RunStatus(row.status),
            attempt=row.attempt,
            warrant_id=row.warrant_id,
            killed=row.kill_reason is not None,
            item_status=WorkItemStatus(row.item_status),
            cancelled=row.cancelled,
            lease_ends=asked_at + (row.lease_seconds or 0.0),
            killing=Epochs.model_validate(row.killing),
            halted=row.halted,
            reservation_id=row.reservation_id,
            llm=LlmGrant.model_validate(row.llm) if row.llm else None,
            asked_at=asked_at,
        )
        self._copies.move_to_end(key)
        if len(self._copies) > MOST_KEPT:
            self._copies.popitem(last=False)
        return run


def why_not(run: LiveRun, claims: RunClaims, now: float) -> tuple[str, str] | None:
    """What keeps a warrant from holding for this run: (code, words); None when nothing does."""
    named = (claims.tenant, claims.run, claims.work_item, claims.assistant)
    this = (run.tenant_id, run.run_id, run.work_item_id, run.assistant_id)
    killing = run.killing
    checks = (
        (
            "run",
            named == this,
            "the warrant names another run",
        ),
        ("ended", run.status in (RunStatus.CLAIMED, RunStatus.RUNNING), f"the run is {run.status}"),
        ("ended", not run.item_status.is_final, f"the work item is {run.item_status}"),
        ("attempt", run.attempt == claims.attempt, f"the run is in attempt {run.attempt}, not {claims.attempt}"),
        ("warrant", run.warrant_id == claims.jti, "the run was started under another warrant"),
        (
            "halted",
            killing.everything <= claims.epochs.everything
            and killing.tenant <= claims.epochs.tenant
            and killing.assistant <= claims.epochs.assistant,
            "a halt has voided the warrant",
        ),
        ("cancelled", not (run.cancelled or run.killed), "the run is to end"),
        ("lease", now < run.lease_ends, "the run's lease is over"),
    )
    return next(((code, words) for code, holds, words in checks if not holds), None)
