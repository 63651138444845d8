"""Approvals as people see them: the question with its whole context, and who may answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import ActionStatus
from models.domain.approval import (
    ApprovalQuestion,
    ApprovalRequirement,
    ApprovalStatus,
    ApprovalTier,
    DecisionRefused,
    DecisionView,
    Human,
    Verdict,
)
from models.domain.errors import NotFound
from models.domain.money import format_usd
from models.domain.principal import Principal
from models.domain.risk import RiskFactor, RiskLevel
from models.domain.views import ApprovalContext, AskedAction, FileView, Subject, VoteView
from models.repositories import actions as action_rows
from models.repositories import approvals as rows
from models.repositories import paging
from models.repositories import principals as principal_rows
from models.repositories import tenants as tenant_rows
from models.repositories import work_items as item_rows
from models.rules import approval as rules
from models.services.who_decides import who_decides
from models.tables.actions import ActionRow
from models.tables.tenancy import AssistantRow, PrincipalRow, TenantRow
from models.tables.work import ApprovalRow, DecisionRow

_ANY_REASON = "(asked for when it is decided)"


async def read(session: AsyncSession, principal: Principal, approval_id: UUID) -> ApprovalContext:
    """One approval with everything that a human needs to decide.

    Raises:
        NotFound: The principal's company does not see it.
    """
    found = await rows.whole(session, approval_id)
    if found is None:
        raise NotFound(f"there is no approval {approval_id}")
    votes = await rows.decisions(session, found.approval.tenant_id, [approval_id])
    return await _context(session, principal, found, votes, await tenant_rows.database_now(session))


async def list_mine(
    session: AsyncSession, principal: Principal, cursor: str | None = None, limit: int = 50
) -> tuple[list[ApprovalContext], str | None]:
    """Open approvals that this principal may decide, newest first; a holding's approver sees its subsidiaries' too.

    Answers the next cursor as well, None at the end. An approval that needs a stronger sign-in is listed, with the
    refusal that says so; one that the principal asked for or has voted on is not.
    """
    size, after = paging.page_size(limit), paging.after(cursor)
    now = await tenant_rows.database_now(session)
    mine: list[ApprovalContext] = []
    while len(mine) <= size:
        found = await rows.pending(session, now, after, size + 1)
        for whole in found:
            votes = await rows.decisions(session, whole.approval.tenant_id, [whole.approval.id])
            if await _is_mine(session, principal, whole, votes):
                mine.append(await _context(session, principal, whole, votes, now))
        if len(found) <= size:
            break
        after = found[-1].approval.id
    return paging.cut(mine, size)


def question(approval: ApprovalRow, tenant: TenantRow, askers: Sequence[PrincipalRow]) -> ApprovalQuestion:
    """The approval as the rules see it."""
    return ApprovalQuestion(
        requirement=ApprovalRequirement.model_validate(approval.requirement),
        item_tenant_id=approval.tenant_id,
        holding_tenant_id=tenant.parent_tenant_id or tenant.tenant_id,
        requesters=tuple(
            Human(tenant_id=row.tenant_id, user_id=row.id, subject=row.subject, email=row.email) for row in askers
        ),
        status=ApprovalStatus(approval.status),
        expires_at=approval.expires_at,
    )


async def askers_of(
    session: AsyncSession, requester: PrincipalRow | None, assistant: AssistantRow
) -> list[PrincipalRow]:
    """Who asked, and the human who answers for the assistant: neither decides on its work."""
    askers = [requester] if requester is not None else []
    if assistant.owner_id is None or (requester is not None and assistant.owner_id == requester.id):
        return askers
    owner = await principal_rows.get(session, assistant.tenant_id, assistant.owner_id)
    return [*askers, owner] if owner is not None else askers


def decision_view(row: DecisionRow) -> DecisionView:
    """A recorded decision as the tally sees it."""
    return DecisionView(
        tenant_id=row.decider_tenant_id,
        user_id=row.decider_id,
        subject=row.decider_subject,
        email=row.decider_email,
        verdict=Verdict(row.verdict),
        as_holding=row.decider_is_holding,
    )


async def votes_in_words(session: AsyncSession, approval: ApprovalRow) -> str:
    """How the votes on an approval stand, in words."""
    votes = await rows.decisions(session, approval.tenant_id, [approval.id])
    requirement = ApprovalRequirement.model_validate(approval.requirement)
    return rules.tally(requirement, [decision_view(row) for row in votes]).words


async def _is_mine(session: AsyncSession, principal: Principal, whole: rows.Whole, votes: list[DecisionRow]) -> bool:
    asked = question(whole.approval, whole.tenant, await askers_of(session, whole.requester, whole.assistant))
    if not rules.may_see(asked, principal):
        return False
    me = rules.human_of(principal)
    return not any(rules.same_human(me, decision_view(row)) for row in votes)


async def _context(
    session: AsyncSession, principal: Principal, whole: rows.Whole, votes: list[DecisionRow], now: datetime
) -> ApprovalContext:
    approval, item, assessment = whole.approval, whole.item, whole.assessment
    asked = question(approval, whole.tenant, await askers_of(session, whole.requester, whole.assistant))
    requirement = asked.requirement
    counted = [decision_view(row) for row in votes]
    answer = rules.may_decide(asked, principal, counted, now=now, reason=_ANY_REASON)
    refused = answer if isinstance(answer, DecisionRefused) else None
    return ApprovalContext(
        id=approval.id,
        tenant_id=approval.tenant_id,
        company=whole.tenant.name,
        **await _subject(session, whole),
        assistant=whole.assistant.slug,
        requester=(whole.requester.display_name or whole.requester.username) if whole.requester else "nobody",
        status=asked.status,
        reason=approval.reason,
        level=RiskLevel(approval.level),
        score=assessment.score,
        factors=tuple(RiskFactor.model_validate(factor) for factor in assessment.factors),
        facts=assessment.facts,
        files=tuple(
            FileView.model_validate(row, from_attributes=True)
            for row in (await item_rows.files(session, item.id) if item is not None else [])
        ),
        worst_case_nano=item.worst_case_nano if item is not None else 0,
        worst_case=format_usd(item.worst_case_nano if item is not None else 0),
        subject_digest=approval.subject_digest,
        tier=ApprovalTier(approval.tier),
        quorum=requirement.quorum,
        reason_required=requirement.reason_required,
        requires_acr=requirement.requires_acr,
        who=await who_decides(session, approval.tenant_id, requirement),
        votes=tuple(_vote(row) for row in votes),
        votes_in_words=rules.tally(requirement, counted, asked.requesters).words,
        created_at=approval.created_at,
        expires_at=approval.expires_at,
        ended_at=approval.ended_at,
        may_decide=refused is None,
        may_edit=refused is None
        and whole.action is not None
        and whole.action.status == ActionStatus.PENDING
        and requirement.quorum == 1,
        refusal=refused.words if refused else "",
        refusal_code=refused.code if refused else None,
    )


async def _subject(session: AsyncSession, whole: rows.Whole) -> dict[str, Any]:
    """What the approval is about: the fields that say so."""
    item, action, action_set = whole.item, whole.action, whole.action_set
    named: dict[str, Any] = {"work_item_id": item.id if item is not None else None}
    before = await action_rows.of_item(session, item.id) if item is not None and (action or action_set) else []
    if action is not None:
        title = f"{action.kind} → {action.target}" + (f", for “{item.title}”" if item is not None else "")
        if whole.is_about_a_try:
            title = f"Nobody knows whether this was done: {title}. Yes tries it again, no leaves it"
        return named | {
            "subject": Subject.ACTION,
            "action_id": action.id,
            "actions": (_asked(action),),
            "earlier": tuple(_in_words(row) for row in before if row.id < action.id),
            "title": title,
            "kind": action.kind,
            "parameters": action.parameters,
        }
    assert item is not None, "an item or a set is of a work item"
    named |= {"title": item.title, "kind": item.kind, "parameters": item.parameters}
    if action_set is None:
        return named
    members = await action_rows.of_set(session, action_set.tenant_id, action_set.id)
    return named | {
        "subject": Subject.ACTION_SET,
        "action_set_id": action_set.id,
        "actions": tuple(_asked(row) for row in members),
        "earlier": tuple(_in_words(row) for row in before if row.set_id != action_set.id),
    }


def _asked(row: ActionRow) -> AskedAction:
    fields = row.model_dump(include=set(AskedAction.model_fields)) | {"why": row.reason}
    return AskedAction.model_validate(fields)


def _in_words(row: ActionRow) -> str:
    return f"{row.kind} → {row.target}: {row.status}" + (f" ({row.words})" if row.words else "")


def _vote(row: DecisionRow) -> VoteView:
    return VoteView(
        name=row.decider_name,
        subject=row.decider_subject,
        tenant_id=row.decider_tenant_id,
        as_holding=row.decider_is_holding,
        verdict=Verdict(row.verdict),
        reason=row.reason,
        channel=row.channel,
        acr=row.acr,
        at=row.created_at,
    )
