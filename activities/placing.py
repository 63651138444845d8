"""`place_run`: polled by a broker only while a runtime of the tenant has a free place."""

from __future__ import annotations

import asyncio
from collections import deque
from uuid import UUID

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    CustomSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
)

from activities.signatures import PlaceOutput, PlaceState, RunInput
from models.domain.principal import service_principal
from models.services import leases
from models.services.leases import Claim, ClaimState
from models.services.warrant_keys import WarrantVerifier
from models.storage.db import Database
from sandbox.link.backend import RuntimeUnavailableError
from sandbox.link.hub import RuntimeHub
from sandbox.link.places import Permit

_STATES = {ClaimState.STALE: PlaceState.STALE, ClaimState.ENDED: PlaceState.ENDED}


class PlaceSlot(SlotPermit):
    """A slot of the tenant's queue, with the place at a runtime that it stands for."""

    def __init__(self, place: Permit) -> None:
        super().__init__()
        self.place = place


class PlaceSlots(CustomSlotSupplier):
    """Slots for one tenant's queue: each is a free place at a connected runtime, so without one nobody polls.

    The slot ends with its activity after a moment; the place then belongs to the sandbox.
    """

    def __init__(self, hub: RuntimeHub, tenant_id: UUID) -> None:
        self._hub = hub
        self._tenant_id = tenant_id
        self._loop = asyncio.get_running_loop()
        self._used: deque[Permit] = deque()

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        """Wait until a place is free."""
        return PlaceSlot(await self._hub.free_place(self._tenant_id))

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:
        """No eager tasks: they would come without a poll."""
        return None

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """A task has come; its activity takes the place. Called from the SDK's own thread."""
        if isinstance(ctx.permit, PlaceSlot):
            self._used.append(ctx.permit.place)

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        """Give the place back, unless a run has it by now. Called from the SDK's own thread."""
        if isinstance(ctx.permit, PlaceSlot):
            self._loop.call_soon_threadsafe(ctx.permit.place.release)

    def take(self) -> Permit | None:
        """A place for the activity that has just started; None when its runtime has gone meanwhile."""
        while self._used:
            place = self._used.popleft()
            if place.usable:
                return place
        return self._hub.try_free_place(self._tenant_id)


class Placing:
    """Claims runs of one tenant and hands them to its runtimes."""

    def __init__(
        self, db: Database, hub: RuntimeHub, slots: PlaceSlots, verifier: WarrantVerifier, broker_id: str
    ) -> None:
        self._db = db
        self._hub = hub
        self._slots = slots
        self._verifier = verifier
        self._broker_id = broker_id

    @activity.defn(name="place_run")
    async def place_run(self, given: RunInput) -> PlaceOutput:
        """Claim the run, and return once its runtime has recorded it.

        Raises:
            ApplicationError: `runtime-unavailable`, before anything was claimed: place again.
        """
        place = self._slots.take()
        if place is None:
            raise ApplicationError("the runtime with the free place has just gone", type="runtime-unavailable")
        try:
            claimed = await self._claim(given, place.runtime_id)
            if claimed.state is not ClaimState.CLAIMED:
                return PlaceOutput(state=_STATES[claimed.state], words=claimed.words)
            return await self._hand_over(given, place, claimed)
        finally:
            place.release()

    async def _claim(self, given: RunInput, runtime_id: UUID) -> Claim:
        principal = service_principal("broker", given.tenant_id)
        async with self._db.session_for(principal) as session:
            return await leases.claim(
                session, principal, given.run_id, given.attempt, runtime_id, self._broker_id, self._verifier
            )

    async def _hand_over(self, given: RunInput, place: Permit, claimed: Claim) -> PlaceOutput:
        assert claimed.spec is not None, "a claim brings its spec"
        try:
            placed = await self._hub.place(
                place,
                run_id=given.run_id,
                attempt=given.attempt,
                warrant=claimed.token,
                spec=claimed.spec,
                continuation=claimed.continuation,
            )
        except RuntimeUnavailableError as error:
            # It may have recorded the run: only its return or the lease's end tells, and following sees either.
            return PlaceOutput(state=PlaceState.PLACED, words=f"perhaps: {error}")
        if placed.accepted:
            return PlaceOutput(state=PlaceState.PLACED)
        return PlaceOutput(state=PlaceState.STALE, words=placed.error or "the runtime refused it")
