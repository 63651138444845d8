"""The facts of an action, and how many are too many. Pure: what an agent says of itself never lowers what is known.

INVARIANT: whatever the agent states, each fact is at least what the work item, the connector and the method make it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar

from models.domain.action import (
    HTTP_READS,
    ActionMode,
    ActionRequest,
    Effect,
    FileEffect,
    HttpEffect,
    N8nEffect,
)
from models.domain.money import NanoUsd
from models.domain.policy import ActionRules
from models.domain.risk import RiskLevel
from models.domain.work_item import AssistantRecord, DataClass, ExternalEffect, Reversibility, WorkItemFacts

_Fact = TypeVar("_Fact", bound=StrEnum)


def facts_of(
    asked: ActionRequest,
    effect: Effect | None,
    item: WorkItemFacts | None,
    record: AssistantRecord,
    seen_by: ExternalEffect | None = None,
) -> WorkItemFacts:
    """What the risk rules see of an action.

    Args:
        asked: What the agent says; a fact it leaves out takes its cautious value.
        effect: What AWGP would do for it; its method and connector are facts that the agent cannot talk down.
        item: The facts of the work item; None for an agent that runs elsewhere.
        record: The assistant's past.
        seen_by: Who notices what the connector does, where its admin has said so.
    """
    item_class = item.data_class if item is not None else DataClass.PUBLIC
    cautious_class = item.data_class if item is not None else DataClass.RESTRICTED
    item_amount = item.amount_nano_usd if item is not None else 0
    return WorkItemFacts(
        kind=asked.kind,
        data_class=_highest(item_class, asked.data_class or cautious_class),
        reversibility=_highest(_undoing(effect), asked.reversibility or Reversibility.IRREVERSIBLE),
        external_effect=_highest(_noticed(effect, seen_by), asked.external_effect or ExternalEffect.EXTERNAL),
        amount_nano_usd=NanoUsd(max(item_amount, asked.amount_nano_usd or 0)),
        tools=frozenset() if effect is None else frozenset({tool_of(effect)}),
        assistant=record,
    )


def tool_of(effect: Effect) -> str:
    """What the policy's conditions on tools see of an effect: `<connector>.read`, `.write`, `.send` or `.file`."""
    match effect:
        case HttpEffect():
            return f"{effect.connector[:56]}.{'read' if effect.method in HTTP_READS else 'write'}"
        case N8nEffect():
            return f"{effect.connector[:56]}.send"
        case FileEffect():
            return f"{effect.connector[:56]}.file"


def method_of(effect: Effect | None) -> str:
    """The part of an effect that says what class of action it is."""
    return effect.method if isinstance(effect, HttpEffect) else ""


def is_staged(rules: ActionRules, mode: ActionMode, level: RiskLevel, *, has_effect: bool) -> bool:
    """Whether the effect is collected for the run's end: the agent asks so, or the policy demands it."""
    if not has_effect:
        return False
    demanded = rules.staged_from is not None and level >= rules.staged_from
    return demanded or mode is ActionMode.STAGED


def too_many(rules: ActionRules, of_item: int, in_minute: int) -> str | None:
    """Why one more may not be asked for, in words; None: it may.

    Args:
        rules: The policy's.
        of_item: Actions of the work item so far; 0 for an agent that runs elsewhere.
        in_minute: Those of the last minute, of the item or of the assistant.
    """
    if of_item >= rules.most_per_item:
        return f"this work item has asked for {of_item} actions; the policy allows {rules.most_per_item}"
    if in_minute >= rules.most_per_minute:
        return f"{in_minute} actions were asked for within a minute; the policy allows {rules.most_per_minute}"
    return None


def _undoing(effect: Effect | None) -> Reversibility:
    deletes = isinstance(effect, HttpEffect) and effect.method == "DELETE"
    return Reversibility.COSTLY if deletes else Reversibility.REVERSIBLE


def _noticed(effect: Effect | None, seen_by: ExternalEffect | None) -> ExternalEffect:
    match effect:
        case HttpEffect() | N8nEffect():
            # What leaves the house is noticed outside, unless whoever set the connector up says who is behind it.
            return seen_by or ExternalEffect.EXTERNAL
        case FileEffect() | None:
            return ExternalEffect.NONE


def _highest(one: _Fact, other: _Fact) -> _Fact:
    """The more serious of two values; the enums are written from the least to the most serious."""
    order: Sequence[_Fact] = list(type(one))
    return max(one, other, key=order.index)
