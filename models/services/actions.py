"""Asking for an action: assessed by the rules of work items, and answered, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import ActionMode, ActionRequest, ActionStatus, AgentCaller
from models.domain.action_views import ActionAnswer
from models.domain.errors import Conflict, IdempotencyMismatch
from models.domain.policy import Policy
from models.domain.principal import Principal
from models.domain.risk import RiskAssessment
from models.domain.work_item import WorkItemFacts
from models.repositories import actions as rows
from models.rules import action as rules
from models.rules import approval as approval_rules
from models.rules import risk
from models.services import action_ends, agents, audit, policies
from models.services.action_approvals import ask
from models.services.action_digests import action_digest, class_digest, request_digest
from models.services.action_effects import MAX_EFFECT_BYTES, MAX_PARAMETERS_BYTES, Resolved, checked, invalid, resolve
from models.services.action_views import answer_of, count_again, list_own, read_own
from models.services.assistant_record import record_of
from models.services.ids import new_id
from models.services.operations import at_most_every
from models.services.plain_json import no_nul
from models.tables.actions import ActionRow
from models.tables.tenancy import AssistantRow
from models.tables.work import RiskAssessmentRow, WorkItemRow

__all__ = ["answer_of", "list_own", "read_own", "request_action"]

SAY_CAP_AGAIN_SECONDS = 60
"""A cap that denies is audited at most once in so long: an agent that asks in a loop must not fill the trail."""


@dataclass(frozen=True)
class _Asked:
    """A request, with all that follows from it and from what the database holds."""

    caller: AgentCaller
    principal: Principal
    assistant: AssistantRow
    item: WorkItemRow | None
    policy: Policy
    policy_version_id: UUID
    request: ActionRequest
    effect: Resolved | None
    key: str
    request_digest: str
    class_digest: str


async def request_action(
    session: AsyncSession, caller: AgentCaller, request: ActionRequest, idempotency_key: str
) -> ActionAnswer:
    """Ask leave for an action; the answer stands when the transaction commits.

    The same key of the same work item (elsewhere: of the same assistant) gives the same action, whatever became of it
    meanwhile. L0–L1 are permitted at once; from L2 on people are asked. What people have said no to is not asked
    again. A cap that denies writes nothing but an audit event.

    Raises:
        IdempotencyMismatch: The key was used for another request.
        InvalidInput: Something in it is not acceptable; `errors` says where.
        Forbidden: The run is not (or no longer) this caller's, or halted; the assistant is switched off.
    """
    _check(caller, request)
    key, digest = _key(caller, idempotency_key), request_digest(request)
    known = await rows.by_key(session, caller.tenant_id, caller.assistant_id, key)
    if known is not None:
        return answer_of(_same(known, digest))
    # INVARIANT: from here on requests of one item (elsewhere: of one assistant) come one after the other.
    standing = await agents.lock_standing(session, caller)
    if standing.item is None:
        await rows.one_at_a_time(session, caller.tenant_id, caller.assistant_id)
    known = await rows.by_key(session, caller.tenant_id, caller.assistant_id, key)
    if known is not None:
        return answer_of(_same(known, digest))
    asked = await _whole(session, caller, standing, request, key, digest)
    denied = await _denied_before(session, asked) or await _capped(session, asked)
    return denied or answer_of(await _write(session, asked))


def _check(caller: AgentCaller, request: ActionRequest) -> None:
    checked("parameters", request.parameters, MAX_PARAMETERS_BYTES)
    if request.effect is not None:
        checked("effect", request.effect, MAX_EFFECT_BYTES)
    for where, text in (("target", request.target), ("reason", request.reason)):
        try:
            no_nul(text)
        except ValueError as error:
            raise invalid(where, str(error)) from error
    if request.mode is ActionMode.STAGED and request.effect is None:
        raise invalid("mode", "staged collects an effect, and there is none")
    if request.mode is ActionMode.STAGED and not caller.is_run:
        raise invalid("mode", "staged waits for a run's end, and this agent runs elsewhere")


def _key(caller: AgentCaller, key: str) -> str:
    if not (1 <= len(key) <= 200 and key.isascii() and key.isprintable()):
        raise invalid("Idempotency-Key", "1 to 200 printable ASCII characters")
    # An agent's program names its requests alike in each work item.
    return f"{caller.work_item_id or 'elsewhere'}/{key}"


def _same(known: ActionRow, digest: str) -> ActionRow:
    if known.request_digest != digest:
        raise IdempotencyMismatch(
            f"this idempotency key made action {known.id} from another request", action_id=str(known.id)
        )
    return known


async def _whole(
    session: AsyncSession, caller: AgentCaller, standing: agents.Standing, request: ActionRequest, key: str, digest: str
) -> _Asked:
    assistant, item = standing.assistant, standing.item
    version_id = item.policy_version_id if item else (await policies.current(session, caller.tenant_id)).id
    effect = await resolve(session, assistant, request.effect) if request.effect is not None else None
    method = rules.method_of(effect.effect if effect else None)
    return _Asked(
        caller=caller,
        principal=standing.principal,
        assistant=assistant,
        item=item,
        policy=await policies.pinned(session, caller.tenant_id, version_id),
        policy_version_id=version_id,
        request=request,
        effect=effect,
        key=key,
        request_digest=digest,
        class_digest=class_digest(request.kind, request.target, effect.effect.connector if effect else "", method),
    )


async def _denied_before(session: AsyncSession, asked: _Asked) -> ActionAnswer | None:
    """The denial that stands for this class of action: no new question; audited once, counted from then on."""
    caller = asked.caller
    known = await rows.standing_denial(
        session,
        caller.tenant_id,
        caller.assistant_id,
        caller.work_item_id,
        asked.class_digest,
        asked.policy.actions.denied_for,
    )
    if known is None:
        return None
    if count_again(known) == 1:
        audit.record(
            session,
            asked.principal,
            kind="action.asked_again",
            subject=f"action/{known.id}",
            summary=f"{asked.assistant.slug} asked again for what was denied: {known.kind} → {known.target}",
            work_item_id=known.work_item_id,
            data={"class_digest": known.class_digest},
        )
    session.add(known)
    await session.flush()
    return answer_of(known)


async def _capped(session: AsyncSession, asked: _Asked) -> ActionAnswer | None:
    caller = asked.caller
    of_item, in_minute = await rows.counts(session, caller.tenant_id, caller.assistant_id, caller.work_item_id)
    words = rules.too_many(asked.policy.actions, of_item, in_minute)
    if words is None:
        return None
    op_id = f"action-cap/{caller.work_item_id or caller.assistant_id}"
    if await at_most_every(session, caller.tenant_id, op_id, SAY_CAP_AGAIN_SECONDS):
        audit.record(
            session,
            asked.principal,
            kind="action.capped",
            subject=f"assistant/{caller.assistant_id}",
            summary=f"Denied without a question: {words}",
            work_item_id=caller.work_item_id,
            data={"of_item": of_item, "in_minute": in_minute, "kind": asked.request.kind},
        )
    return ActionAnswer(id=None, status=ActionStatus.DENIED, reason=words, parameters=asked.request.parameters)


async def _write(session: AsyncSession, asked: _Asked) -> ActionRow:
    record = await record_of(session, asked.assistant)
    item_facts = WorkItemFacts.model_validate(asked.item.facts) if asked.item is not None else None
    effect = asked.effect
    facts = rules.facts_of(
        asked.request, effect.effect if effect else None, item_facts, record, effect.seen_by if effect else None
    )
    assessment = risk.assess(asked.policy, facts)
    row = _row(asked, facts, assessment)
    if not await rows.insert_if_new(session, row):
        raise Conflict("another request with this idempotency key is just being undone; try again")
    stored = await rows.lock(session, row.id)
    assert stored is not None, "an action just inserted is seen by its own transaction"
    assessed = RiskAssessmentRow(
        tenant_id=row.tenant_id,
        id=new_id(),
        work_item_id=row.work_item_id,
        action_id=row.id,
        policy_version_id=row.policy_version_id,
        score=row.score,
        level=row.level,
        factors=row.factors,
        facts=row.facts,
    )
    session.add(assessed)
    await session.flush()
    _record_asked(session, asked, stored)
    await _answer(session, asked, stored, assessed, assessment)
    return stored


def _row(asked: _Asked, facts: WorkItemFacts, assessment: RiskAssessment) -> ActionRow:
    caller, request = asked.caller, asked.request
    effect = asked.effect.stored if asked.effect else None
    digest = action_digest(
        tenant_id=caller.tenant_id,
        assistant_id=caller.assistant_id,
        work_item_id=caller.work_item_id,
        run_id=caller.run_id,
        kind=request.kind,
        target=request.target,
        parameters=request.parameters,
        effect=effect,
    )
    return ActionRow(
        tenant_id=caller.tenant_id,
        id=new_id(),
        assistant_id=caller.assistant_id,
        work_item_id=caller.work_item_id,
        run_id=caller.run_id,
        attempt=caller.attempt,
        idempotency_key=asked.key,
        request_digest=asked.request_digest,
        kind=request.kind,
        target=request.target,
        class_digest=asked.class_digest,
        parameters=request.parameters,
        effect=effect,
        mode=request.mode.value,
        reason=request.reason,
        facts=facts.model_dump(mode="json") | {"tools": sorted(facts.tools)},
        policy_version_id=asked.policy_version_id,
        level=assessment.level.value,
        score=assessment.score,
        factors=[factor.model_dump(mode="json") for factor in assessment.factors],
        digest=digest,
        asked_digest=digest,
        status=ActionStatus.PENDING.value,
    )


async def _answer(
    session: AsyncSession, asked: _Asked, row: ActionRow, assessed: RiskAssessmentRow, assessment: RiskAssessment
) -> None:
    """Permit, stage, or ask people."""
    level, has_effect = assessment.level, row.effect is not None
    mode = ActionMode(row.mode)
    if asked.item is not None and rules.is_staged(asked.policy.actions, mode, level, has_effect=has_effect):
        await action_ends.stage(session, asked.principal, row)
        return
    requirement = approval_rules.requirement_for(asked.policy, level)
    if requirement is None:
        words = f"{level.value} goes on by itself"
        await action_ends.allow(session, asked.principal, row, ActionStatus.PERMITTED, words)
        return
    await ask(session, asked.principal, row, asked.item, assessed, requirement)


def _record_asked(session: AsyncSession, asked: _Asked, row: ActionRow) -> None:
    data: dict[str, Any] = {
        "kind": row.kind,
        "target": row.target,
        "mode": row.mode,
        "level": row.level,
        "score": row.score,
        "digest": row.digest,
        "connector": row.effect["connector"] if row.effect else None,
        "run_id": str(row.run_id) if row.run_id else None,
        "attempt": row.attempt,
    }
    audit.record(
        session,
        asked.principal,
        kind="action.requested",
        subject=f"action/{row.id}",
        summary=f"{asked.assistant.slug} asks to {row.kind} → {row.target} ({row.level}, score {row.score})",
        work_item_id=row.work_item_id,
        data=data,
    )
