"""Assess the facts of a work item under a policy. Pure: the same facts and policy give the same answer.

INVARIANT: a factor adds points or nothing, a floor lifts the level or nothing. So one more factor or floor
that applies never lowers the level, and what cannot be worked out counts in full: the rules fail closed.
"""

from collections.abc import Iterable

import cel

from models.domain.policy import FactorRule, FloorRule, Policy, Thresholds
from models.domain.risk import MAX_SCORE, RiskAssessment, RiskFactor, RiskLevel
from models.domain.work_item import WorkItemFacts
from models.rules import condition
from models.rules.policy import digest

UNCLEAR = " (could not be worked out, so it counts in full)"


def assess(policy: Policy, facts: WorkItemFacts) -> RiskAssessment:
    """Score the facts and say why."""
    values = condition.scene(facts)
    factors = [
        *(found for rule in policy.factors if (found := _factor(rule, values))),
        *(found for rule in policy.floors if (found := _floor(rule, values))),
    ]
    score, level = score_of(policy.levels, factors)
    return RiskAssessment(
        score=score,
        level=level,
        factors=tuple(factors),
        policy_version=policy.policy.version,
        policy_digest=digest(policy),
    )


def score_of(levels: Thresholds, factors: Iterable[RiskFactor]) -> tuple[int, RiskLevel]:
    """The score (points added up, at most 100) and the level (by score, or the highest floor)."""
    points, floor = 0, RiskLevel.L0
    for factor in factors:
        points += factor.points
        floor = max(floor, factor.at_least or RiskLevel.L0)
    score = min(points, MAX_SCORE)
    reached = [level for level, starts_at in levels.steps() if score >= starts_at]
    return score, max([floor, *reached])


def _factor(rule: FactorRule, values: cel.Context) -> RiskFactor | None:
    try:
        if not condition.holds(rule.when, values):
            return None
        points = rule.points if isinstance(rule.points, int) else condition.number(rule.points, values)
    except condition.ConditionError:
        points = rule.points if isinstance(rule.points, int) else MAX_SCORE
        return RiskFactor(id=rule.id, points=points, words=rule.words + UNCLEAR)
    return RiskFactor(id=rule.id, points=max(0, min(points, MAX_SCORE)), words=rule.words)


def _floor(rule: FloorRule, values: cel.Context) -> RiskFactor | None:
    words = rule.words
    try:
        if not condition.holds(rule.when, values):
            return None
    except condition.ConditionError:
        words += UNCLEAR
    return RiskFactor(id=rule.id, points=0, words=words, at_least=rule.at_least)
