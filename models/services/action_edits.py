"""What an approver changes before saying yes: assessed anew under the same pinned policy, and never made graver."""

from __future__ import annotations

from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import ActionEdits, ActionRequest, ActionStatus
from models.domain.approval import ApprovalRequirement, Verdict
from models.domain.errors import Conflict
from models.domain.principal import Principal
from models.domain.risk import RiskLevel
from models.domain.work_item import AssistantRecord, WorkItemFacts
from models.repositories import actions as rows
from models.repositories.approvals import Whole
from models.rules import action as rules
from models.rules import risk
from models.services import audit, policies
from models.services.action_digests import digest_of
from models.services.action_effects import MAX_EFFECT_BYTES, MAX_PARAMETERS_BYTES, Resolved, checked, invalid, resolve
from models.services.ids import new_id
from models.tables.actions import ActionRow
from models.tables.work import ApprovalRow, RiskAssessmentRow


def may_be_edited(whole: Whole, requirement: ApprovalRequirement, verdict: Verdict) -> None:
    """Refuse edits where they would not be what everybody voted on.

    Raises:
        Conflict: The approval is not about one action, or takes more than one vote.
        InvalidInput: They come with a no.
    """
    if whole.action is None:
        raise Conflict("only one action may be edited; a work item or a set is decided as it is", code="not_editable")
    if whole.action.status != ActionStatus.PENDING:
        raise Conflict("this may have been done already: it is tried again as it is, or left", code="not_editable")
    if requirement.quorum > 1:
        raise Conflict(
            f"this takes {requirement.quorum} approvals, and each must be of the same thing: reject it, and the agent"
            " asks for another",
            code="quorum",
        )
    if verdict is not Verdict.APPROVE:
        raise invalid("edits", "go with a yes; a no changes nothing")


async def apply(session: AsyncSession, principal: Principal, whole: Whole, edits: ActionEdits) -> str:
    """Write the edits into the locked action and its approval; answers the digest that is then voted on.

    INVARIANT: the level after the edits, by the policy that the action is pinned to, is not above the one that was
    asked about. So whoever may decide the question may decide the edited one.

    Raises:
        InvalidInput: An edited part is not acceptable.
        Conflict: The edited action would be of a higher level, or goes by another connector.
    """
    assert whole.action is not None, "checked"
    row = await rows.lock(session, whole.action.id)
    assert row is not None, "the approval names it"
    effect = await _edited(session, whole, row, edits)
    policy = await policies.pinned(session, row.tenant_id, row.policy_version_id)
    facts = _facts(whole, row, effect)
    found = risk.assess(policy, facts)
    asked = RiskLevel(whole.approval.level)
    if found.level > asked:
        raise Conflict(
            f"edited like this it would be {found.level.value}, and {asked.value} was asked about; reject it, and the"
            " agent asks for what it needs",
            code="level_rises",
            level=found.level.value,
        )
    row.digest = digest_of(row)
    row.facts = facts.model_dump(mode="json") | {"tools": sorted(facts.tools)}
    row.score = found.score
    row.factors = [factor.model_dump(mode="json") for factor in found.factors]
    session.add(row)
    assessed = _assessment(row, found.level)
    session.add(assessed)
    await session.flush()
    _follow(session, principal, whole.approval, row, assessed.id)
    return row.digest


async def _edited(session: AsyncSession, whole: Whole, row: ActionRow, edits: ActionEdits) -> Resolved | None:
    """Put the edited parts into the row."""
    if edits.parameters is not None:
        row.parameters = checked("edits.parameters", edits.parameters, MAX_PARAMETERS_BYTES)
    if row.effect is None:
        if edits.effect is not None:
            raise Conflict("the agent asked for no effect of ours, so there is none to edit", code="no_effect")
        return None
    if edits.effect is not None:
        checked("edits.effect", edits.effect, MAX_EFFECT_BYTES)
    asked = {name: value for name, value in row.effect.items() if not name.startswith("connector_")}
    effect = await resolve(session, whole.assistant, edits.effect or asked)
    if effect.effect.connector != row.effect["connector"]:
        raise Conflict("the edited effect goes by another connector; reject it instead", code="other_connector")
    row.effect = effect.stored
    return effect


def _facts(whole: Whole, row: ActionRow, effect: Resolved | None) -> WorkItemFacts:
    """The facts that were asked about, with those that follow from the edited effect. What the agent said stays."""
    before = WorkItemFacts.model_validate(row.facts)
    stated = ActionRequest(
        kind=row.kind,
        target=row.target,
        data_class=before.data_class,
        reversibility=before.reversibility,
        external_effect=before.external_effect,
        amount_nano_usd=before.amount_nano_usd,
    )
    item = WorkItemFacts.model_validate(whole.item.facts) if whole.item is not None else None
    record: AssistantRecord = before.assistant
    return rules.facts_of(stated, effect.effect if effect else None, item, record, effect.seen_by if effect else None)


def _assessment(row: ActionRow, level: RiskLevel) -> RiskAssessmentRow:
    return RiskAssessmentRow(
        tenant_id=row.tenant_id,
        id=new_id(),
        work_item_id=row.work_item_id,
        action_id=row.id,
        policy_version_id=row.policy_version_id,
        score=row.score,
        level=level.value,
        factors=row.factors,
        facts=row.facts,
    )


def _follow(
    session: AsyncSession, principal: Principal, approval: ApprovalRow, row: ActionRow, assessment_id: UUID
) -> None:
    """The approval is from now on about what was edited; who is asked, and how many, stays."""
    approval.subject_digest, approval.assessment_id = row.digest, assessment_id
    session.add(approval)
    audit.record(
        session,
        principal,
        kind="action.edits_written",
        subject=f"action/{row.id}",
        summary=f"{principal.display_name or principal.subject} changed {row.kind} → {row.target} before saying yes",
        work_item_id=row.work_item_id,
        data={"asked_digest": row.asked_digest, "digest": row.digest, "score": row.score},
    )
