"""Effects outside: a warrant for each, burnt before the request leaves; what came of it, and what follows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

import structlog
from temporalio import activity

from activities.signatures import (
    EffectInput,
    EffectMintOutput,
    EffectMintState,
    EffectOutput,
    SettleOutput,
    SettleState,
    StagedOutput,
    StagedState,
    WorkItemInput,
)
from models.domain.effect import Answer, Outcome
from models.domain.errors import WarrantRefused
from models.domain.principal import service_principal
from models.services import effect_warrants, effects, staged
from models.services.effects import ANSWER_GRACE_SECONDS, Job
from models.services.operations import once
from models.services.outbound_http import HttpSender
from models.services.warrant_keys import JwksVerifier, WarrantSigner
from models.storage.db import Database
from models.storage.vault import Vault

log = structlog.get_logger("effects")

BEAT_SECONDS = 5
RECORD_TRIES = 6
"""What the other side answered is known here alone: half a minute for a database that is just away."""


class Effects:
    """Mints, performs and settles. INVARIANT: neither a warrant nor a secret crosses Temporal.

    Args:
        db: The application's role.
        signer: The control worker's key; what it signs is verified by its public half.
        sender: Sends requests.
        vault: Opens the companies' secrets; None: connectors with a credential perform nothing.
        grace_seconds: How long after its time is over a try is said to have no answer.
    """

    def __init__(
        self,
        db: Database,
        signer: WarrantSigner,
        sender: HttpSender,
        vault: Vault | None,
        *,
        grace_seconds: int = ANSWER_GRACE_SECONDS,
    ) -> None:
        self._db = db
        self._signer = signer
        self._verifier = JwksVerifier(signer.public_jwks())
        self._sender = sender
        self._vault = vault
        self._grace_seconds = grace_seconds

    @activity.defn(name="mint_effect")
    async def mint_effect(self, given: EffectInput) -> EffectMintOutput:
        """Recompute everything and write the signed warrant; what is refused for good ends the action, and says so."""
        principal = service_principal("control", given.tenant_id)
        try:
            async with self._db.session_for(principal) as session:

                async def mint() -> EffectMintOutput:
                    state, words = await effect_warrants.mint(session, principal, given.action_id, self._signer)
                    return EffectMintOutput(state=EffectMintState(state.value), words=words[:500])

                return await once(session, given.tenant_id, given.op_id, EffectMintOutput, mint)
        except WarrantRefused as refusal:
            words = await self._refused(given, refusal)
            return EffectMintOutput(state=EffectMintState.ENDED, words=words[:500])

    @activity.defn(name="perform_effect")
    async def perform_effect(self, given: EffectInput) -> EffectOutput:
        """Burn the warrant, send, write down what came of it.

        A worker that is to end while the other side is asked waits for its answer: to be cut off would leave a try of
        which nobody knows.
        """
        principal, before = service_principal("connector", given.tenant_id), _now()
        try:
            async with self._db.session_for(principal) as session:
                began = await effects.begin(session, principal, given.action_id, self._verifier, self._vault)
        except WarrantRefused as refusal:
            return EffectOutput(words=(await self._refused(given, refusal))[:500])
        if began.job is None:
            return EffectOutput(words=began.words[:500])
        sending = asyncio.create_task(self._send(given, began.job, before))
        beating = asyncio.create_task(_beat())
        try:
            answer = await _to_its_end(sending)
        finally:
            beating.cancel()
        return EffectOutput(words=answer.words[:500])

    @activity.defn(name="settle_effect")
    async def settle_effect(self, given: EffectInput) -> SettleOutput:
        """Say what follows from the tries; what nobody knows is put before people."""
        principal = service_principal("control", given.tenant_id)
        async with self._db.session_for(principal) as session:

            async def settle() -> SettleOutput:
                found = await effects.settle(session, principal, given.action_id, self._grace_seconds)
                return SettleOutput(state=SettleState(found.state.value), words=found.words[:500], until=found.until)

            return await once(session, given.tenant_id, given.op_id, SettleOutput, settle)

    @activity.defn(name="advance_staged")
    async def advance_staged(self, given: WorkItemInput) -> StagedOutput:
        """Say what is next for the staged effects of an item whose run has ended well."""
        principal = service_principal("control", given.tenant_id)
        async with self._db.session_for(principal) as session:

            async def advance() -> StagedOutput:
                found = await staged.advance(session, principal, given.work_item_id)
                return StagedOutput(
                    state=StagedState(found.state.value),
                    words=found.words[:500],
                    action_id=found.action_id,
                    approval_id=found.approval_id,
                    expires_at=found.expires_at,
                )

            return await once(session, given.tenant_id, given.op_id, StagedOutput, advance)

    async def _refused(self, given: EffectInput, refusal: WarrantRefused) -> str:
        principal = service_principal("control", given.tenant_id)
        async with self._db.session_for(principal) as session:
            return await effects.end_refused(session, principal, given.action_id, refusal)

    async def _send(self, given: EffectInput, job: Job, before: float) -> Answer:
        # INVARIANT: what may have been given up for lost is never sent: people may have said to try again.
        if _now() - before < ANSWER_GRACE_SECONDS:
            answer = await self._sender.send(job.config, job.request)
        else:
            words = "this worker stood still before it was sent"
            answer = Answer(Outcome.NOT_SENT, words, {"sent": False, "words": words}, {})
        principal = service_principal("connector", given.tenant_id)
        for number in range(1, RECORD_TRIES + 1):
            try:
                async with self._db.session_for(principal) as session:
                    await effects.record(session, principal, given.action_id, job.attempt, answer)
                break
            except Exception as error:
                log.warning("effect_not_recorded", action=str(given.action_id), number=number, why=type(error).__name__)
                if number == RECORD_TRIES:
                    raise
                await asyncio.sleep(min(2 ** (number - 1), 15))
        return answer


def _now() -> float:
    """Seconds that pass also while this process, or its machine, stands still."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def _beat() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(BEAT_SECONDS)


async def _to_its_end(sending: Awaitable[Answer]) -> Answer:
    """Wait for the answer also when this activity is cancelled; then say that it was."""
    task = asyncio.ensure_future(sending)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
