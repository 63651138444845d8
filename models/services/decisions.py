"""One human's answer: checked, written and tallied in one transaction under the approval's row lock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import ActionEdits, ActionStatus
from models.domain.approval import ApprovalQuestion, ApprovalStatus, DecisionRefused, RefusalCode, Verdict
from models.domain.errors import AlreadyDecided, AwgpError, Conflict, InvalidInput, NotDecidable, NotFound
from models.domain.principal import Principal
from models.domain.work_item import WorkItemStatus
from models.repositories import approvals as rows
from models.repositories import tenants as tenant_rows
from models.rules import approval as rules
from models.services import action_edits, audit, tenants
from models.services.action_approvals import lock_approval, subject_ended
from models.services.approval_views import askers_of, decision_view, question
from models.services.ids import new_id
from models.services.outbox import OutboxKind, enqueue
from models.storage.db import Database
from models.tables.work import ApprovalRow, DecisionRow


@dataclass(frozen=True)
class _Vote:
    """What somebody answers."""

    verdict: Verdict
    reason: str
    digest: str | None
    channel: str
    edits: ActionEdits | None


_TOO_LATE = frozenset({RefusalCode.ALREADY_CLOSED, RefusalCode.EXPIRED, RefusalCode.ALREADY_VOTED})


async def decide(
    db: Database,
    principal: Principal,
    tenant_id: UUID | None,
    approval_id: UUID,
    *,
    verdict: Verdict,
    reason: str = "",
    digest: str | None = None,
    channel: str = "api",
    edits: ActionEdits | None = None,
) -> ApprovalRow:
    """Vote on an approval; the outcome that the vote makes stands when this returns.

    Takes the database and not a session: the vote runs in the item's own tenant (a holding's person is let in there
    after the database has verified the holding), and a refused attempt is audited in a transaction of its own.

    `tenant_id` is the item's; None finds it among those that the principal's company sees. `digest` is the one that
    the decider was shown: when given, it must be the approval's. `channel` says where the answer came from (`api`,
    `dashboard`, `telegram`). A `reason` is mandatory where the policy says so. `edits` change an action before a yes.

    Raises:
        NotFound: The principal's company does not see the approval.
        NotDecidable: This principal may not decide it; `code` says which rule refused.
        AlreadyDecided: It is closed, its time has passed, or this human has voted.
        InvalidInput: A reason is missing.
        Conflict: The digest is not that of what is asked, or the edits are none that this vote could allow.
    """
    vote = _Vote(verdict, reason.strip(), digest, channel, edits)
    tenant_id = tenant_id or await _tenant_of(db, principal, approval_id)
    try:
        async with tenants.acting_in(db, principal, tenant_id) as session:
            return await _vote(session, principal, approval_id, vote)
    except (NotDecidable, AlreadyDecided, InvalidInput, Conflict) as refusal:
        async with tenants.acting_in(db, principal, tenant_id) as session:
            await _record_refusal(session, principal, approval_id, verdict, channel, refusal)
        raise


async def _tenant_of(db: Database, principal: Principal, approval_id: UUID) -> UUID:
    async with db.session_for(principal) as session:
        row = await rows.get(session, approval_id)
    if row is None:
        raise NotFound(f"there is no approval {approval_id}")
    return row.tenant_id


async def _vote(session: AsyncSession, principal: Principal, approval_id: UUID, vote: _Vote) -> ApprovalRow:
    await lock_approval(session, approval_id)
    whole = await rows.whole(session, approval_id)
    if whole is None:
        raise NotFound(f"there is no approval {approval_id}")
    approval = whole.approval
    asked = question(approval, whole.tenant, await askers_of(session, whole.requester, whole.assistant))
    votes = [decision_view(row) for row in await rows.decisions(session, approval.tenant_id, [approval.id])]
    # INVARIANT: `now` is read after the row lock was had, so an expiry that won is seen, and time spent waiting counts.
    now = await tenant_rows.database_now(session)
    answer = rules.may_decide(asked, principal, votes, now=now, reason=vote.reason)
    if isinstance(answer, DecisionRefused):
        raise _refusal(answer, approval)
    _check_subject(whole, vote.digest)
    if vote.edits is not None:
        action_edits.may_be_edited(whole, asked.requirement, vote.verdict)
        await action_edits.apply(session, principal, whole, vote.edits)
    row = DecisionRow(
        tenant_id=approval.tenant_id,
        id=new_id(),
        approval_id=approval.id,
        decider_tenant_id=principal.tenant_id,
        decider_id=principal.id,
        decider_subject=principal.subject,
        decider_name=principal.display_name or principal.username,
        decider_email=principal.email,
        decider_is_holding=answer.as_holding,
        verdict=vote.verdict.value,
        reason=vote.reason,
        acr=principal.acr,
        channel=vote.channel,
        subject_digest=approval.subject_digest,
        edits=vote.edits.model_dump(mode="json", exclude_none=True) if vote.edits is not None else None,
        created_at=now,
    )
    session.add(row)
    await session.flush()
    await _tally(session, principal, whole, asked, row, [*votes, decision_view(row)])
    return approval


async def _tally(
    session: AsyncSession,
    principal: Principal,
    whole: rows.Whole,
    asked: ApprovalQuestion,
    row: DecisionRow,
    votes: list[Any],
) -> None:
    approval = whole.approval
    standing = rules.tally(asked.requirement, votes, asked.requesters)
    said = "approved" if row.verdict == Verdict.APPROVE else "rejected"
    _record(
        session,
        principal,
        approval,
        kind="approval.decided",
        summary=f"{row.decider_name} {said}" + (f": {row.reason}" if row.reason else ""),
        data={
            "verdict": row.verdict,
            "reason": row.reason,
            "channel": row.channel,
            "acr": row.acr,
            "as_holding": row.decider_is_holding,
            "subject_digest": row.subject_digest,
            "edited": row.edits is not None,
            "votes": standing.words,
        },
    )
    if standing.status is not ApprovalStatus.PENDING:
        approval.status, approval.ended_at = standing.status.value, row.created_at
        approval.reason = row.reason or standing.words
        session.add(approval)
        _record(
            session,
            principal,
            approval,
            kind=f"approval.{standing.status.value}",
            summary=standing.words,
            data={"subject_digest": approval.subject_digest, "level": approval.level},
        )
        await subject_ended(session, principal, approval, whole.item, edited=row.edits is not None)
    if approval.work_item_id is not None:
        enqueue(session, approval.tenant_id, OutboxKind.SIGNAL_WORK_ITEM, {"work_item_id": str(approval.work_item_id)})
    enqueue(session, approval.tenant_id, OutboxKind.SIGNAL_APPROVAL, {"approval_id": str(approval.id)})
    await session.flush()


def _check_subject(whole: rows.Whole, digest: str | None) -> None:
    """What is decided is what was shown, is what would run or be done."""
    approval, item = whole.approval, whole.item
    if digest is not None and digest != approval.subject_digest:
        raise Conflict("the digest is not that of what is asked here; read it again", code="digest_differs")
    if whole.subject_now != approval.subject_digest:
        raise Conflict("what this is about has changed since it was asked", code="subject_changed")
    if whole.action is not None and whole.action.status not in (ActionStatus.PENDING, ActionStatus.UNKNOWN):
        raise AlreadyDecided(f"the action is {whole.action.status}", code="action_ended")
    # Whether an effect was done is to be answered also when the item is over.
    if item is None or (whole.action is not None and whole.action.status == ActionStatus.UNKNOWN):
        return
    # A staged set is decided after its run; nothing else outlives its item.
    ended = WorkItemStatus(item.status).is_final and whole.action_set is None
    if ended or item.cancel_requested_at is not None:
        raise AlreadyDecided("the work item has ended or is being cancelled", code="item_ended")


def _refusal(answer: DecisionRefused, approval: ApprovalRow) -> AwgpError:
    code = answer.code.value
    if answer.code in _TOO_LATE:
        return AlreadyDecided(answer.words, code=code, current=approval.status)
    if answer.code is RefusalCode.REASON_MISSING:
        return InvalidInput(answer.words, code=code, errors=[{"where": "reason", "what": answer.words}])
    return NotDecidable(answer.words, code=code)


async def _record_refusal(
    session: AsyncSession,
    principal: Principal,
    approval_id: UUID,
    verdict: Verdict,
    channel: str,
    refusal: AwgpError,
) -> None:
    approval = await rows.get(session, approval_id)
    if approval is None:
        return
    _record(
        session,
        principal,
        approval,
        kind="approval.refused",
        summary=f"{principal.display_name or principal.subject} may not decide: {refusal.detail}",
        data={
            "verdict": verdict.value,
            "code": str(refusal.extra.get("code", refusal.type)),
            "channel": channel,
            "acr": principal.acr,
        },
    )


def _record(
    session: AsyncSession, principal: Principal, approval: ApprovalRow, *, kind: str, summary: str, data: dict[str, Any]
) -> None:
    audit.record(
        session,
        principal,
        kind=kind,
        subject=f"approval/{approval.id}",
        summary=summary,
        work_item_id=approval.work_item_id,
        data=data,
    )
