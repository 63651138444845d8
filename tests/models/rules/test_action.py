"""The facts of an action: what an agent says of itself never lowers what is known."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.action import ActionMode, ActionRequest, Effect, FileEffect, HttpEffect, N8nEffect
from models.domain.policy import ActionRules
from models.domain.risk import RiskLevel
from models.domain.work_item import AssistantRecord, DataClass, ExternalEffect, Reversibility, WorkItemFacts
from models.rules import action as rules
from models.rules import risk
from models.rules.policy import default_text, load

RECORD = AssistantRecord(runs=100)
DEFAULT = load(default_text())
EFFECTS: list[Effect | None] = [
    None,
    FileEffect(connector="files", artifact="a"),
    N8nEffect(connector="flows", path="/x"),
    *(
        HttpEffect.model_validate({"connector": "hooks", "path": "/", "method": m})
        for m in ("GET", "POST", "DELETE")
    ),
]
ITEMS = st.none() | st.builds(
    WorkItemFacts,
    kind=st.just("reconcile"),
    data_class=st.sampled_from(DataClass),
    amount_nano_usd=st.integers(0, 10**15),
)
STATED: dict[str, Any] = {
    "kind": st.sampled_from(["read", "send_message", "execute_payment", "something"]),
    "target": st.just("x"),
    "data_class": st.none() | st.sampled_from(DataClass),
    "reversibility": st.none() | st.sampled_from(Reversibility),
    "external_effect": st.none() | st.sampled_from(ExternalEffect),
    "amount_nano_usd": st.none() | st.integers(0, 10**15),
}


@given(st.builds(ActionRequest, **STATED), ITEMS, st.sampled_from(EFFECTS))
def test_nothing_that_is_known_is_talked_down(
    asked: ActionRequest, item: WorkItemFacts | None, effect: Effect | None
) -> None:
    """Saying nothing is the gravest thing to say, and saying the least leaves what is known."""
    meek = asked.model_copy(
        update={
            "data_class": DataClass.PUBLIC,
            "reversibility": Reversibility.REVERSIBLE,
            "external_effect": ExternalEffect.NONE,
            "amount_nano_usd": 0,
        }
    )
    silent = asked.model_copy(
        update={"data_class": None, "reversibility": None, "external_effect": None, "amount_nano_usd": None}
    )
    found, least, most = (rules.facts_of(one, effect, item, RECORD) for one in (asked, meek, silent))
    for name, known in (("reversibility", Reversibility), ("external_effect", ExternalEffect)):
        order: list[Any] = list(known)
        ranks = [order.index(getattr(facts, name)) for facts in (least, found, most)]
        assert ranks == sorted(ranks)
    classes = list(DataClass)
    assert classes.index(found.data_class) >= classes.index(least.data_class)
    if item is not None:
        assert classes.index(found.data_class) >= classes.index(item.data_class)
        assert found.amount_nano_usd >= item.amount_nano_usd
    if isinstance(effect, HttpEffect | N8nEffect):
        assert found.external_effect is ExternalEffect.EXTERNAL


@pytest.mark.parametrize("effect", EFFECTS[2:])
def test_what_leaves_the_house_and_writes_is_never_permitted_unseen(effect: Effect) -> None:
    meek = ActionRequest(
        kind="read",
        target="x",
        data_class=DataClass.PUBLIC,
        reversibility=Reversibility.REVERSIBLE,
        external_effect=ExternalEffect.NONE,
    )
    facts = rules.facts_of(meek, effect, None, RECORD)
    level = risk.assess(DEFAULT, facts).level
    reads = isinstance(effect, HttpEffect) and effect.method == "GET"
    assert level.needs_approval or reads


def test_who_notices_may_be_said_by_the_connectors_admin() -> None:
    quiet = ActionRequest(kind="read", target="x", external_effect=ExternalEffect.NONE)
    facts = rules.facts_of(quiet, EFFECTS[2], None, RECORD, ExternalEffect.INTERNAL)
    assert facts.external_effect is ExternalEffect.INTERNAL
    loud = quiet.model_copy(update={"external_effect": ExternalEffect.EXTERNAL})
    assert rules.facts_of(loud, EFFECTS[2], None, RECORD, ExternalEffect.INTERNAL).external_effect == "external"


@pytest.mark.parametrize(
    ("method", "tool"), [("GET", "payments.read"), ("HEAD", "payments.read"), ("DELETE", "payments.write")]
)
def test_the_connector_is_a_tool_of_its_name(method: str, tool: str) -> None:
    effect = HttpEffect.model_validate({"connector": "payments", "path": "/", "method": method})
    assert rules.tool_of(effect) == tool


def test_caps_and_staging() -> None:
    few = ActionRules(most_per_item=2, most_per_minute=3, staged_from=RiskLevel.L3)
    assert rules.too_many(few, 1, 2) is None
    assert "allows 2" in (rules.too_many(few, 2, 0) or "")
    assert "within a minute" in (rules.too_many(few, 0, 3) or "")
    for mode, level, has_effect, staged in (
        (ActionMode.WAIT, RiskLevel.L2, True, False),
        (ActionMode.WAIT, RiskLevel.L3, True, True),
        (ActionMode.WAIT, RiskLevel.L5, False, False),
        (ActionMode.STAGED, RiskLevel.L0, True, True),
    ):
        assert rules.is_staged(few, mode, level, has_effect=has_effect) is staged
    never = ActionRules()
    assert not rules.is_staged(never, ActionMode.WAIT, RiskLevel.L5, has_effect=True)
