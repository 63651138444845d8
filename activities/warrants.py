"""`mint_warrant`: the control worker's, which alone holds the key."""

from __future__ import annotations

from temporalio import activity

from activities.model_calls import with_models_closed
from activities.signatures import WarrantOutput, WarrantState, WorkItemInput
from models.domain.errors import WarrantRefused
from models.domain.principal import Principal, service_principal
from models.services import warrants
from models.services.llm_closing import ModelCloser
from models.services.operations import once
from models.services.warrant_keys import WarrantSigner
from models.storage.db import Database


class Warrants:
    """Mints warrants. INVARIANT: the token stays in PostgreSQL; Temporal sees ids."""

    def __init__(self, db: Database, signer: WarrantSigner, closer: ModelCloser | None = None) -> None:
        self._db = db
        self._signer = signer
        self._closer = closer or ModelCloser(db, None)

    @activity.defn(name="mint_warrant")
    async def mint_warrant(self, given: WorkItemInput) -> WarrantOutput:
        """Recompute everything in one transaction and, if all of it holds, write the signed warrant.

        Raises:
            WarrantRefused: It is not, and will not be, allowed; audited in a transaction of its own.
        """
        principal = service_principal("control", given.tenant_id)
        try:
            # A hold of which an earlier attempt has spent is given up only when it is known how much.
            return await with_models_closed(
                self._closer, given.tenant_id, given.work_item_id, lambda: self._mint(given, principal)
            )
        except WarrantRefused as refusal:
            async with self._db.session_for(principal) as session:
                await warrants.record_refusal(session, principal, given.work_item_id, refusal)
            raise

    async def _mint(self, given: WorkItemInput, principal: Principal) -> WarrantOutput:
        async with self._db.session_for(principal) as session:

            async def mint() -> WarrantOutput:
                found = await warrants.mint(session, principal, given.work_item_id, self._signer)
                return WarrantOutput(
                    state=WarrantState(found.state.value),
                    run_id=found.run_id,
                    attempt=found.attempt,
                    claim_before=found.claim_before,
                    words=found.words,
                )

            return await once(session, given.tenant_id, given.op_id, WarrantOutput, mint)
