"""Performing an effect: the try is written before it is sent, and what came of it after; whatever is not known is said.

INVARIANT: whoever changes an action has locked its item and then the action, so of two tellings one is first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import ActionStatus, FileEffect, HttpEffect, N8nEffect
from models.domain.connector import HttpConnector, N8nConnector
from models.domain.effect import Answer, Outcome
from models.domain.errors import WarrantRefused
from models.domain.principal import Principal
from models.repositories import connectors as connector_rows
from models.repositories import effects as rows
from models.repositories import tenants as tenant_rows
from models.rules.effect import Next, TryState
from models.services import audit, effect_files, effect_questions
from models.services.action_ends import tell
from models.services.effect_requests import Request, build
from models.services.effect_warrants import Standing, is_open, lock_action, recompute, revoke, step_of, take
from models.services.outbox import OutboxKind, enqueue
from models.services.warrant_keys import WarrantVerifier
from models.storage.vault import Vault, VaultError
from models.tables.actions import ActionRow, EffectAttemptRow
from models.tables.execution import WarrantRow

ANSWER_GRACE_SECONDS = 90
"""How long after its time is over a try is said to have no answer: whoever sent it may still be writing it down."""
_STATES = {
    Outcome.PERFORMED: TryState.PERFORMED,
    Outcome.FAILED: TryState.FAILED,
    Outcome.NOT_SENT: TryState.FAILED,
    Outcome.NOT_ALLOWED: TryState.FAILED,
    Outcome.UNKNOWN: TryState.UNKNOWN,
}
_SAID = {
    Outcome.PERFORMED: ("performed", "Performed"),
    Outcome.FAILED: ("failed", "Failed"),
    Outcome.NOT_ALLOWED: ("failed", "Failed, and nothing was sent"),
    Outcome.NOT_SENT: ("not_sent", "Nothing was sent"),
    Outcome.UNKNOWN: ("unknown", "Not known whether it was done"),
}


@dataclass(frozen=True)
class Job:
    """A try that is written down and now to be sent."""

    attempt: int
    config: HttpConnector | N8nConnector
    request: Request


@dataclass(frozen=True)
class Began:
    """What came of beginning a try; `job` is None where nothing is to be sent."""

    words: str
    job: Job | None = None


class Settle(StrEnum):
    """What follows from the tries."""

    DONE = "done"
    """Nothing more, or people are asked; whoever has answered begins anew."""
    AGAIN = "again"
    WAIT = "wait"
    """A try's time is not over."""


@dataclass(frozen=True)
class Settled:
    """What follows; `until` is when a try's time is over."""

    state: Settle
    words: str = ""
    until: datetime | None = None


async def begin(
    session: AsyncSession, principal: Principal, action_id: UUID, verifier: WarrantVerifier, vault: Vault | None
) -> Began:
    """Burn the warrant and write the try as `sent`; the request leaves when this has committed, and not before.

    What is done within PostgreSQL (a file handed over) is done here, whole.

    Raises:
        WarrantRefused: It may not be performed; the caller ends the action in a transaction of its own.
    """
    action, item = await lock_action(session, action_id)
    if not is_open(action):
        return Began(f"the action is {action.status}")
    standing = await recompute(session, action, item)
    if await step_of(session, standing) is not Next.PERFORM:
        return Began("what came of a try is to be settled first")
    request = await _request(session, standing, vault)
    try:
        warrant = await take(session, standing, verifier)
    except WarrantRefused as refusal:
        return await _not_taken(session, principal, action, refusal)
    row = await _write_try(session, principal, standing, warrant, request)
    if request is None:
        answer = await effect_files.hand_over(session, principal, standing)
        await _record(session, principal, action, row, answer)
        return Began(answer.words)
    assert isinstance(standing.config, HttpConnector | N8nConnector), "others send nothing"
    return Began("sent", Job(row.attempt, standing.config, request))


async def record(session: AsyncSession, principal: Principal, action_id: UUID, attempt: int, answer: Answer) -> None:
    """Write what came of a try. An answer that comes after it was given up for lost is the truth all the same."""
    action, _ = await lock_action(session, action_id)
    made = await rows.tries(session, action.tenant_id, action.id)
    row = next(one for one in made if one.attempt == attempt)
    late = row.state == TryState.UNKNOWN and answer.outcome in (Outcome.PERFORMED, Outcome.FAILED)
    if row.state == TryState.SENT or late:
        await _record(session, principal, action, row, answer)


async def settle(session: AsyncSession, principal: Principal, action_id: UUID, grace_seconds: int) -> Settled:
    """Say what follows from the tries of an action; repeatable.

    A try that has no answer when its time is over by the database's clock is `unknown`. Where the other side takes a
    key it is made again under the same key; elsewhere people are asked.
    """
    action, item = await lock_action(session, action_id)
    if not is_open(action):
        return Settled(Settle.DONE, action.words)
    made = await rows.tries(session, action.tenant_id, action.id)
    if made and made[-1].state == TryState.SENT:
        over = made[-1].started_at + timedelta(seconds=int(made[-1].request["timeout_seconds"]) + grace_seconds)
        if await tenant_rows.database_now(session) < over:
            return Settled(Settle.WAIT, "a try is under way", over)
        await _give_up(session, principal, action, made[-1])
    try:
        standing = await recompute(session, action, item)
    except WarrantRefused as refusal:
        await _end_refused(session, principal, action, refusal)
        return Settled(Settle.DONE, action.words)
    match await step_of(session, standing):
        case Next.PERFORM:
            return Settled(Settle.AGAIN, action.words)
        case Next.ASK:
            await effect_questions.ask_again(session, principal, standing)
            return Settled(Settle.DONE, action.words)
        case Next.UNDER_WAY:  # not reached: it was given up above
            return Settled(Settle.WAIT, "a try is under way", await tenant_rows.database_now(session))
        case Next.PERFORMED:
            await _end(session, principal, action, ActionStatus.PERFORMED, "performed")
        case Next.FAILED:
            await _end(session, principal, action, ActionStatus.FAILED, action.words or "the tries came to nothing")
    return Settled(Settle.DONE, action.words)


async def end_refused(session: AsyncSession, principal: Principal, action_id: UUID, refusal: WarrantRefused) -> str:
    """Audit a refusal and end the action, in a transaction of its own; answers how in words."""
    action, _ = await lock_action(session, action_id)
    if is_open(action):
        await _end_refused(session, principal, action, refusal)
    return action.words


async def _request(session: AsyncSession, standing: Standing, vault: Vault | None) -> Request | None:
    config, effect = standing.config, standing.effect
    if isinstance(effect, FileEffect):
        return None
    assert isinstance(config, HttpConnector | N8nConnector), "the kinds were compared"
    assert isinstance(effect, HttpEffect | N8nEffect), "likewise"
    values = await _secrets(session, vault, standing.action.tenant_id) if vault is not None else {}
    return build(config, effect, standing.action.id, values)


async def _secrets(session: AsyncSession, vault: Vault, tenant_id: UUID) -> dict[str, str]:
    """All of the company's: one may be shown, and all are hidden in what is kept."""
    values: dict[str, str] = {}
    for sealed in await connector_rows.secrets_of(session, tenant_id):
        try:
            values[sealed.name] = vault.open(tenant_id, sealed.name, sealed.ciphertext)
        except VaultError:
            continue  # what does not open cannot be shown; whoever needs it is refused
    return values


async def _not_taken(session: AsyncSession, principal: Principal, action: ActionRow, refusal: WarrantRefused) -> Began:
    """A warrant that does not hold is void; the rows allow the effect, so the next is minted from them."""
    await revoke(session, action)
    _audit(session, principal, action, "refused", f"The warrant was refused: {refusal.detail}", code=_code(refusal))
    return Began(refusal.detail)


async def _write_try(
    session: AsyncSession, principal: Principal, standing: Standing, warrant: WarrantRow, request: Request | None
) -> EffectAttemptRow:
    action = standing.action
    now = await tenant_rows.database_now(session)
    kept = request.record() if request is not None else {"file": dict(action.effect or {}).get("artifact", "")}
    row = EffectAttemptRow(
        tenant_id=action.tenant_id,
        action_id=action.id,
        attempt=warrant.attempt,
        state=TryState.SENT.value,
        request={
            "warrant_id": str(warrant.id),
            "connector": standing.connector.name,
            "connector_version": standing.connector.version,
            "timeout_seconds": getattr(standing.config, "timeout_seconds", 0),
            **kept,
        },
        started_at=now,
    )
    action.status, action.warrant_id, action.updated_at = ActionStatus.PERFORMING.value, warrant.id, now
    action.words = f"try {row.attempt} is under way"
    session.add_all([row, action])
    await session.flush()
    what = f"{kept['method']} {kept['url']}" if request is not None else f"the file {kept['file']}"
    _audit(
        session,
        principal,
        action,
        "sent",
        f"{standing.connector.name}: {what[:300]} (try {row.attempt})",
        attempt=row.attempt,
        warrant_id=str(warrant.id),
        digest=action.digest,
        request=_short(kept),
    )
    return row


async def _record(
    session: AsyncSession, principal: Principal, action: ActionRow, row: EffectAttemptRow, answer: Answer
) -> None:
    late = row.state == TryState.UNKNOWN
    row.state, row.response = _STATES[answer.outcome].value, answer.record
    row.ended_at = await tenant_rows.database_now(session)
    session.add(row)
    await session.flush()
    what, words = _SAID[answer.outcome]
    _audit(
        session,
        principal,
        action,
        what,
        f"{words}: {answer.words}",
        attempt=row.attempt,
        late=late,
        response=_short(answer.record),
    )
    if action.status == ActionStatus.PERFORMED:
        return
    # What came late of one try ends nothing while another is under way, unless it says that it is done.
    overtaken = late and action.status == ActionStatus.PERFORMING
    if answer.outcome is Outcome.PERFORMED:
        action.result = answer.result
        await _end(session, principal, action, ActionStatus.PERFORMED, answer.words)
    elif answer.outcome in (Outcome.FAILED, Outcome.NOT_ALLOWED) and not overtaken:
        action.result = answer.result or None
        await _end(session, principal, action, ActionStatus.FAILED, answer.words)
    elif not overtaken:
        action.words, action.updated_at = answer.words, row.ended_at
        session.add(action)
        await session.flush()


async def _give_up(session: AsyncSession, principal: Principal, action: ActionRow, row: EffectAttemptRow) -> None:
    words = "nobody has said what came of it: whoever sent it is gone"
    await _record(session, principal, action, row, Answer(Outcome.UNKNOWN, words, {"sent": True, "words": words}, {}))


async def _end_refused(session: AsyncSession, principal: Principal, action: ActionRow, refusal: WarrantRefused) -> None:
    await revoke(session, action)
    made = await rows.tries(session, action.tenant_id, action.id)
    doubtful = any(one.state in (TryState.SENT, TryState.UNKNOWN) for one in made)
    words = f"not performed: {refusal.detail}" if not doubtful else f"not tried again: {refusal.detail}"
    _audit(session, principal, action, "refused", words[0].upper() + words[1:], code=_code(refusal))
    await _end(session, principal, action, ActionStatus.UNKNOWN if doubtful else ActionStatus.FAILED, words)


async def _end(
    session: AsyncSession, principal: Principal, action: ActionRow, status: ActionStatus, words: str
) -> None:
    """End a locked action; a staged set goes on with the next, or stops."""
    action.status, action.words = status.value, words[:2000]
    action.ended_at = action.updated_at = await tenant_rows.database_now(session)
    session.add(action)
    await session.flush()
    await effect_questions.nobody_asks_any_more(session, principal, action)
    await tell(session, action)
    if action.work_item_id is not None and action.set_id is not None:
        enqueue(session, action.tenant_id, OutboxKind.SIGNAL_WORK_ITEM, {"work_item_id": str(action.work_item_id)})


def _short(kept: dict[str, Any]) -> dict[str, Any]:
    """What of a request or an answer stands in the trail: its body's beginning, and the digest of the whole."""
    return {key: value[:1024] if key == "body" else value for key, value in kept.items()}


def _code(refusal: WarrantRefused) -> str:
    return str(refusal.extra.get("code", ""))


def _audit(
    session: AsyncSession, principal: Principal, action: ActionRow, what: str, summary: str, **data: Any
) -> None:
    audit.record(
        session,
        principal,
        kind=f"effect.{what}",
        subject=f"action/{action.id}",
        summary=summary,
        work_item_id=action.work_item_id,
        data=data,
    )
