"""One human's answer: checked, written and tallied in one transaction under the approval's row lock."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.approval import ApprovalQuestion, ApprovalStatus, DecisionRefused, RefusalCode, Verdict
from models.domain.errors import AlreadyDecided, AwgpError, Conflict, InvalidInput, NotDecidable, NotFound
from models.domain.principal import Principal
from models.domain.work_item import WorkItemStatus
from models.repositories import approvals as rows
from models.repositories import tenants as tenant_rows
from models.rules import approval as rules
from models.services import audit, tenants
from models.services.approval_views import askers_of, decision_view, question
from models.services.ids import new_id
from models.services.outbox import OutboxKind, enqueue
from models.storage.db import Database
from models.tables.work import ApprovalRow, DecisionRow, WorkItemRow

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
) -> ApprovalRow:
    """Vote on an approval; the outcome that the vote makes stands when this returns.

    Takes the database and not a session: the vote runs in the item's own tenant (a holding's person is let in there
    after the database has verified the holding), and a refused attempt is audited in a transaction of its own.

    `tenant_id` is the item's; None finds it among those that the principal's company sees. `digest` is the one that
    the decider was shown: when given, it must be the approval's. `channel` says where the answer came from (`api`,
    `dashboard`, `telegram`). A `reason` is mandatory where the policy says so.

    Raises:
        NotFound: The principal's company does not see the approval.
        NotDecidable: This principal may not decide it; `code` says which rule refused.
        AlreadyDecided: It is closed, its time has passed, or this human has voted.
        InvalidInput: A reason is missing.
        Conflict: The digest is not that of what is asked.
    """
    tenant_id = tenant_id or await _tenant_of(db, principal, approval_id)
    try:
        async with tenants.acting_in(db, principal, tenant_id) as session:
            return await _vote(session, principal, approval_id, verdict, reason.strip(), digest, channel)
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


async def _vote(
    session: AsyncSession,
    principal: Principal,
    approval_id: UUID,
    verdict: Verdict,
    reason: str,
    digest: str | None,
    channel: str,
) -> ApprovalRow:
    approval = await rows.lock(session, approval_id)
    whole = await rows.whole(session, approval_id)
    if approval is None or whole is None:
        raise NotFound(f"there is no approval {approval_id}")
    _, item, assistant, requester, _, tenant = whole
    asked = question(approval, item, tenant, await askers_of(session, requester, assistant))
    votes = [decision_view(row) for row in await rows.decisions(session, approval.tenant_id, [approval.id])]
    # INVARIANT: `now` is read after the row lock was had, so an expiry that won is seen, and time spent waiting counts.
    now = await tenant_rows.database_now(session)
    answer = rules.may_decide(asked, principal, votes, now=now, reason=reason)
    if isinstance(answer, DecisionRefused):
        raise _refusal(answer, approval)
    _check_subject(approval, item, digest)
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
        verdict=verdict.value,
        reason=reason,
        acr=principal.acr,
        channel=channel,
        subject_digest=approval.subject_digest,
        created_at=now,
    )
    session.add(row)
    await session.flush()
    await _tally(session, principal, approval, asked, row, [*votes, decision_view(row)])
    return approval


async def _tally(
    session: AsyncSession,
    principal: Principal,
    approval: ApprovalRow,
    asked: ApprovalQuestion,
    row: DecisionRow,
    votes: list[Any],
) -> None:
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
    enqueue(session, approval.tenant_id, OutboxKind.SIGNAL_WORK_ITEM, {"work_item_id": str(approval.work_item_id)})
    enqueue(session, approval.tenant_id, OutboxKind.SIGNAL_APPROVAL, {"approval_id": str(approval.id)})
    await session.flush()


def _check_subject(approval: ApprovalRow, item: WorkItemRow, digest: str | None) -> None:
    """What is decided is what was shown, is what would run."""
    if digest is not None and digest != approval.subject_digest:
        raise Conflict("the digest is not that of what is asked here; read it again", code="digest_differs")
    if item.spec_digest != approval.subject_digest:
        raise Conflict("the work item has changed since this was asked", code="subject_changed")
    if WorkItemStatus(item.status).is_final or item.cancel_requested_at is not None:
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
