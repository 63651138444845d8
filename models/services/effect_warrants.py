"""A warrant to perform one effect: everything that allows it is recomputed, signed, and used up before it is sent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import ActionStatus, Effect
from models.domain.connector import Connector, FileConnector
from models.domain.errors import InvalidInput, NotFound, WarrantRefused
from models.domain.principal import Principal
from models.domain.work_item import WorkItemStatus
from models.repositories import actions as action_rows
from models.repositories import approvals as approval_rows
from models.repositories import assistants as assistant_rows
from models.repositories import effects as rows
from models.repositories import tenants as tenant_rows
from models.repositories import warrants as warrant_rows
from models.repositories import work_items as item_rows
from models.rules.effect import Next, next_step
from models.services import audit, connectors, halts
from models.services.action_effects import stored_effect
from models.services.effect_leave import as_try, granted, missing_leave
from models.services.effect_requests import repeatable
from models.services.ids import new_id
from models.services.warrant_keys import WarrantSigner, WarrantVerifier
from models.tables.actions import ActionRow, ConnectorRow
from models.tables.execution import WarrantRow
from models.tables.work import WorkItemRow

CLAIM_BEFORE_SECONDS = 300
STILL_GOOD_SECONDS = 30
"""A live warrant that may be claimed for so long yet is answered again; an older one is minted anew."""
_OPEN = frozenset({ActionStatus.PERMITTED, ActionStatus.EDITED, ActionStatus.PERFORMING})
_STANDS = frozenset({WorkItemStatus.SUCCEEDED, WorkItemStatus.FAILED})
"""Ends of an item after which what was permitted in its course is still owed; every other end takes it back."""


class EffectMint(StrEnum):
    """What came of a request for a warrant."""

    MINTED = "minted"
    HALTED = "halted"
    UNSETTLED = "unsettled"
    """A try is under way, or has ended and nobody has said what follows from it."""
    ENDED = "ended"


@dataclass(frozen=True)
class Standing:
    """An action under its locks, with all that a warrant is about.

    Attributes:
        item: Locked too; None for an agent that runs elsewhere.
    """

    action: ActionRow
    item: WorkItemRow | None
    connector: ConnectorRow
    config: Connector
    effect: Effect
    facts: dict[str, Any]


async def lock_action(session: AsyncSession, action_id: UUID) -> tuple[ActionRow, WorkItemRow | None]:
    """Lock an action of the session's own tenant, and its work item before it.

    Raises:
        NotFound: There is none.
    """
    seen = await action_rows.get(session, action_id)
    item = None
    if seen is not None and seen.work_item_id is not None:
        item = await item_rows.lock(session, seen.work_item_id)
    elif seen is not None:
        # Without an item to lock first, whoever decides locks the question and then the action: so do we.
        for asked in await rows.approvals_of_action(session, seen.tenant_id, seen.id):
            if asked.ended_at is None:
                await approval_rows.lock(session, asked.id)
    row = await action_rows.lock(session, action_id)
    if row is None:
        raise NotFound(f"there is no action {action_id}")
    return row, item


def is_open(action: ActionRow) -> bool:
    """Whether its effect may be due: allowed, under way, or staged in a set that is being committed."""
    if action.ended_at is not None or action.effect is None:
        return False
    return ActionStatus(action.status) in _OPEN or (action.status == ActionStatus.STAGED and action.set_id is not None)


async def mint(
    session: AsyncSession, principal: Principal, action_id: UUID, signer: WarrantSigner
) -> tuple[EffectMint, str]:
    """Recompute everything and, if all of it holds, write the signed warrant; repeatable. Answers words as well.

    Raises:
        WarrantRefused: What was allowed is not what would be done, or it was not allowed. Asking again does not help;
            the caller ends the action in a transaction of its own.
        NotFound: There is no such action.
    """
    action, item = await lock_action(session, action_id)
    if not is_open(action):
        return EffectMint.ENDED, f"the action is {action.status}"
    halt = await halts.active_halt(session, action.tenant_id, action.assistant_id)
    if halt is not None:
        await revoke(session, action)
        return EffectMint.HALTED, f"{halt.scope} is halted: {halt.reason}"
    standing = await recompute(session, action, item)
    if await step_of(session, standing) is not Next.PERFORM:
        return EffectMint.UNSETTLED, "what came of a try is to be settled first"
    known = await _still_good(session, standing)
    if known is None:
        await _write(session, principal, standing, signer)
    return EffectMint.MINTED, ""


async def step_of(session: AsyncSession, standing: Standing) -> Next:
    """What may be done next about a locked action."""
    action = standing.action
    made = [as_try(row) for row in await rows.tries(session, action.tenant_id, action.id)]
    said = await granted(session, action, standing.item) if made else frozenset[UUID]()
    return next_step(made, said, repeatable=is_repeatable(standing.config, standing.effect))


def is_repeatable(config: Connector, effect: Effect) -> bool:
    """Whether performing it twice is performing it once."""
    if isinstance(config, FileConnector):
        return True  # one transaction of ours
    return repeatable(config, effect)  # pyright: ignore[reportArgumentType] - the kinds were compared


async def recompute(session: AsyncSession, action: ActionRow, item: WorkItemRow | None) -> Standing:
    """All that allows a locked action, from the rows as they are now.

    Raises:
        WarrantRefused: It is not allowed; the words say why.
    """
    _refuse_stopped(item)
    missing = await missing_leave(session, action, item)
    if missing is not None:
        raise WarrantRefused(f"no leave: {missing}", code="leave")
    assistant = await assistant_rows.get(session, action.assistant_id)
    if assistant is None or not assistant.enabled:
        raise WarrantRefused("the assistant is switched off", code="assistant")
    assert action.effect is not None, "only what has an effect is performed"
    connector = await connectors.find_for(session, assistant, str(action.effect.get("connector")))
    if connector is None:
        raise WarrantRefused("the connector is switched off, or not the assistant's any more", code="connector")
    if (connector.kind, connector.version) != (
        action.effect.get("connector_kind"),
        action.effect.get("connector_version"),
    ):
        raise WarrantRefused("the connector was changed after this was allowed", code="connector")
    try:
        config, effect = connectors.config_of(connector), stored_effect(action.effect)
        connectors.refuse_unperformable(config, effect)
    except InvalidInput as error:
        raise WarrantRefused(error.detail, code="connector") from error
    epochs = await halts.epochs(session, action.tenant_id, action.assistant_id)
    made = await rows.tries(session, action.tenant_id, action.id)
    facts = {
        "action": str(action.id),
        "digest": action.digest,
        "connector": connector.name,
        "connector_version": connector.version,
        "policy_version": str(action.policy_version_id),
        "set": str(action.set_id) if action.set_id else None,
        "try": len(made) + 1,
        "epochs": epochs.model_dump(),
    }
    return Standing(action, item, connector, config, effect, facts)


async def take(session: AsyncSession, standing: Standing, verifier: WarrantVerifier) -> WarrantRow:
    """Use the action's warrant up, after it was compared with the rows as they are now.

    INVARIANT: it is burnt in the transaction that writes the try, and that transaction is over before anything is sent.

    Raises:
        WarrantRefused: There is none, or it does not hold; what does not hold is revoked by the caller.
    """
    action = standing.action
    warrant = await rows.lock_live_warrant(session, action.tenant_id, action.id)
    if warrant is None:
        raise WarrantRefused("there is no live warrant", code="none")
    claims = verifier.verify(warrant.token)
    expected = _claims(standing, warrant.id, int(warrant.claim_before.timestamp()))
    wrong = [name for name, value in expected.items() if claims.get(name) != value]
    now = await tenant_rows.database_now(session)
    halt = await halts.active_halt(session, action.tenant_id, action.assistant_id)
    for name, holds in (
        ("claims", claims == warrant.claims),
        ("claim_before", warrant.claim_before > now),
        ("halt", halt is None),
    ):
        if not holds:
            wrong.append(name)
    if wrong:
        raise WarrantRefused("the warrant does not hold: " + ", ".join(wrong), code=wrong[0])
    warrant.claimed_at = now
    session.add(warrant)
    return warrant


def _refuse_stopped(item: WorkItemRow | None) -> None:
    if item is None:
        return
    status = WorkItemStatus(item.status)
    if status.is_final and status not in _STANDS:
        raise WarrantRefused(f"its work item is {status.value}", code="item")
    if item.cancel_requested_at is not None:
        raise WarrantRefused("its work item is being cancelled", code="item")


async def _still_good(session: AsyncSession, standing: Standing) -> WarrantRow | None:
    """The live warrant if it says what a new one would say and may be claimed a while yet; else none lives."""
    action = standing.action
    live = await rows.lock_live_warrant(session, action.tenant_id, action.id)
    if live is None:
        return None
    now = await tenant_rows.database_now(session)
    same = all(live.claims.get(name) == value for name, value in standing.facts.items())
    if same and (live.claim_before - now).total_seconds() > STILL_GOOD_SECONDS:
        return live
    live.revoked_at = now
    session.add(live)
    await session.flush()
    return None


async def revoke(session: AsyncSession, action: ActionRow) -> None:
    """Void the action's live warrant, if it has one: the next is minted from the rows."""
    live = await rows.lock_live_warrant(session, action.tenant_id, action.id)
    if live is not None:
        live.revoked_at = await tenant_rows.database_now(session)
        session.add(live)
        await session.flush()


def _claims(standing: Standing, warrant_id: UUID, claim_before: int) -> dict[str, Any]:
    action = standing.action
    return {
        "iss": "awgp",
        "aud": "effect",
        "jti": str(warrant_id),
        "tenant": str(action.tenant_id),
        "assistant": str(action.assistant_id),
        "work_item": str(action.work_item_id) if action.work_item_id else None,
        "claim_before": claim_before,
        **standing.facts,
    }


async def _write(session: AsyncSession, principal: Principal, standing: Standing, signer: WarrantSigner) -> None:
    action, warrant_id = standing.action, new_id()
    claim_before = await warrant_rows.end_of_claiming(session, CLAIM_BEFORE_SECONDS)
    claims = _claims(standing, warrant_id, int(claim_before.timestamp()))
    session.add(
        WarrantRow(
            tenant_id=action.tenant_id,
            id=warrant_id,
            action_id=action.id,
            work_item_id=action.work_item_id,
            attempt=standing.facts["try"],
            token=signer.sign(claims),
            claims=claims,
            claim_before=claim_before,
        )
    )
    await session.flush()
    audit.record(
        session,
        principal,
        kind="warrant.minted",
        subject=f"warrant/{warrant_id}",
        summary=f"Leave to perform {action.kind} → {action.target} once, by the connector {standing.connector.name}",
        work_item_id=action.work_item_id,
        data={key: claims[key] for key in ("action", "digest", "connector", "connector_version", "try", "epochs")},
    )
