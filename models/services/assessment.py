"""Scoring a work item's risk by the policy version that it pinned when it was created."""

from __future__ import annotations

from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.errors import NotFound
from models.domain.principal import Principal
from models.domain.risk import RiskAssessment
from models.domain.work_item import WorkItemFacts, WorkItemStatus
from models.repositories import assistants as assistant_rows
from models.rules import risk
from models.services import lifecycle, policies
from models.services.assistant_record import record_of
from models.services.ids import new_id
from models.tables.work import RiskAssessmentRow, WorkItemRow


async def assess(session: AsyncSession, principal: Principal, work_item_id: UUID) -> WorkItemRow:
    """Write the item's assessment, its level and score, and move it `submitted → assessing`.

    Safe to repeat: an item that is assessed (or final) is answered as it stands.

    Raises:
        NotFound: Not an item of the bound tenant.
    """
    item = await lifecycle.lock_work_item(session, work_item_id)
    if item.status != WorkItemStatus.SUBMITTED:
        return item
    policy = await policies.pinned(session, item.tenant_id, item.policy_version_id)
    assistant = await assistant_rows.get(session, item.assistant_id)
    if assistant is None:
        raise NotFound(f"there is no assistant {item.assistant_id}")
    asked = WorkItemFacts.model_validate(item.facts)
    # The record is counted now: what happened since the item was asked for is known too.
    facts = asked.model_copy(update={"assistant": await record_of(session, assistant)})
    assessment = risk.assess(policy, facts)
    session.add(
        RiskAssessmentRow(
            tenant_id=item.tenant_id,
            id=new_id(),
            work_item_id=item.id,
            policy_version_id=item.policy_version_id,
            score=assessment.score,
            level=assessment.level.value,
            factors=[factor.model_dump(mode="json") for factor in assessment.factors],
            facts=facts.model_dump(mode="json") | {"tools": sorted(facts.tools)},
        )
    )
    item.risk_level, item.risk_score = assessment.level.value, assessment.score
    await lifecycle.move(
        session,
        principal,
        item,
        WorkItemStatus.ASSESSING,
        summary=_words(assessment),
        data={
            "score": assessment.score,
            "level": assessment.level.value,
            "factors": [_factor_words(assessment, index) for index in range(len(assessment.factors))],
            "policy_digest": assessment.policy_digest,
        },
    )
    return item


def _words(assessment: RiskAssessment) -> str:
    goes_on = "waits for people" if assessment.level.needs_approval else "goes on by itself"
    return f"Risk {assessment.level.value} (score {assessment.score} of 100): {goes_on}"


def _factor_words(assessment: RiskAssessment, index: int) -> str:
    factor = assessment.factors[index]
    weight = f"at least {factor.at_least.value}" if factor.at_least else f"+{factor.points}"
    return f"{factor.words} ({weight})"
