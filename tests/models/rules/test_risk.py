from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.money import MAX_NANO_USD
from models.domain.policy import FactorRule, FloorRule, Policy
from models.domain.risk import RiskLevel
from models.domain.work_item import (
    DataClass,
    ExternalEffect,
    KnownKind,
    Reversibility,
    WorkItemFacts,
)
from models.rules import condition
from models.rules.policy import default_text, load
from models.rules.risk import UNCLEAR, assess, score_of

DEFAULT = load(default_text())
AGAIN = load(default_text())
USD = 10**9


def facts(**given_facts: Any) -> WorkItemFacts:
    calm = {"data_class": "public", "reversibility": "reversible", "external_effect": "none", "kind": "read"}
    return WorkItemFacts.model_validate({**calm, **given_facts})


FACTS = st.builds(
    facts,
    kind=st.sampled_from([*KnownKind, "juggle"]),
    data_class=st.sampled_from(DataClass),
    reversibility=st.sampled_from(Reversibility),
    external_effect=st.sampled_from(ExternalEffect),
    amount_nano_usd=st.one_of(st.just(0), st.integers(0, 10**6 * USD), st.integers(0, MAX_NANO_USD)),
    tools=st.frozensets(st.sampled_from(["files.read", "mail.send", "payments.write", "web", "db.write"])),
    assistant=st.integers(0, 50).flatmap(
        lambda runs: st.fixed_dictionaries({"runs": st.just(runs), "failed": st.integers(0, runs)})
    ),
)
OUT = {"external_effect": "external"}
FINAL_OUT = {**OUT, "reversibility": "irreversible"}


@pytest.mark.parametrize(
    ("given_facts", "level"),
    [
        ({}, "L0"),
        ({"kind": "reconcile", "data_class": "internal"}, "L1"),
        ({"kind": "reconcile", "data_class": "internal", "tools": ["files.read"]}, "L1"),
        ({"kind": "report", "data_class": "confidential"}, "L1"),
        ({"kind": "report", "data_class": "personal"}, "L2"),
        ({"kind": "juggle"}, "L2"),
        ({"kind": "prepare_payment", "data_class": "internal", "amount_nano_usd": 4_310 * USD}, "L3"),
        (
            {
                "kind": "prepare_payment",
                "data_class": "confidential",
                "amount_nano_usd": 9_000 * USD,
                "tools": ["payments.write"],
            },
            "L3",
        ),
        ({"kind": "send_message", "data_class": "personal", **OUT}, "L3"),
        ({"kind": "execute_payment", "data_class": "internal", "amount_nano_usd": 100 * USD, **OUT}, "L4"),
        ({"kind": "change_access"}, "L4"),
        (
            {
                "kind": "execute_payment",
                "data_class": "internal",
                "amount_nano_usd": 900_000 * USD,
                **FINAL_OUT,
            },
            "L5",
        ),
        ({"kind": "report", "data_class": "restricted", **OUT}, "L5"),
    ],
)
def test_levels_of_the_default_policy(given_facts: dict[str, Any], level: str):
    assessment = assess(DEFAULT, facts(**given_facts))
    assert assessment.level is RiskLevel(level), assessment


def test_the_factors_add_up_and_say_why():
    answer = assess(DEFAULT, facts(kind="reconcile", data_class="internal"))
    assert [(factor.id, factor.points) for factor in answer.factors] == [
        ("data_internal", 10),
        ("assistant_new", 4),
    ]
    assert answer.score == 14
    assert all(factor.words.endswith(".") for factor in answer.factors)


def test_cents_do_not_slip_below_a_threshold():
    below = facts(kind="prepare_payment", amount_nano_usd=9_999 * USD)
    above = facts(kind="prepare_payment", amount_nano_usd=9_999 * USD + 1)
    assert assess(DEFAULT, above).score == assess(DEFAULT, below).score + 1


@given(FACTS)
def test_the_same_facts_give_the_same_answer(some: WorkItemFacts):
    again = WorkItemFacts.model_validate_json(some.model_dump_json())
    first = assess(DEFAULT, some)
    assert assess(DEFAULT, again) == first == assess(AGAIN, some)
    assert not any(UNCLEAR in factor.words for factor in first.factors)


ORDERS: dict[str, list[Any]] = {
    "reversibility": list(Reversibility),
    "external_effect": list(ExternalEffect),
    "data_class": list(DataClass),
}


@given(FACTS, st.sampled_from(sorted(ORDERS)), st.data())
def test_worse_facts_never_lower_the_level(some: WorkItemFacts, field: str, data: st.DataObject):
    order = ORDERS[field]
    now = order.index(getattr(some, field))
    worse = some.model_copy(update={field: order[data.draw(st.integers(now, len(order) - 1))]})
    _not_lower(some, worse)


@given(FACTS, st.integers(0, MAX_NANO_USD))
def test_more_money_never_lowers_the_level(some: WorkItemFacts, amount: int):
    worse = some.model_copy(update={"amount_nano_usd": max(amount, some.amount_nano_usd)})
    _not_lower(some, worse)


@given(FACTS, st.frozensets(st.sampled_from(["a.delete", "payments.read", "x.send", "y"])))
def test_more_tools_never_lower_the_level(some: WorkItemFacts, more: frozenset[str]):
    _not_lower(some, some.model_copy(update={"tools": some.tools | more}))


def _not_lower(some: WorkItemFacts, worse: WorkItemFacts) -> None:
    before, after = assess(DEFAULT, some), assess(DEFAULT, worse)
    assert after.score >= before.score
    assert after.level >= before.level


CONDITIONS = st.sampled_from(
    [
        "true",
        "amount_usd > 500",
        "kind == 'read'",
        "data_class in ['personal', 'restricted']",
        "size(tools) > 1",
        "assistant.runs < 10",
        "1 / amount_usd > 0",
        "tools[0] == 'web'",
        "!known_kind",
        "amount_nano_usd * 10 > 5",
    ]
)
FACTORS = st.builds(
    FactorRule,
    id=st.just("some"),
    when=CONDITIONS,
    points=st.one_of(st.integers(0, 100), st.sampled_from(["amount_usd / 100", "1 / size(tools)", "5 - 9"])),
    words=st.just("Some words."),
)
FLOORS = st.builds(
    FloorRule,
    id=st.just("low"),
    when=CONDITIONS,
    at_least=st.sampled_from(RiskLevel),
    words=st.just("Words."),
)


@settings(max_examples=200)
@given(FACTS, st.lists(FACTORS, max_size=5), st.lists(FLOORS, max_size=3), st.data())
def test_more_rules_never_lower_the_level(
    some: WorkItemFacts, factors: list[FactorRule], floors: list[FloorRule], data: st.DataObject
):
    """Also with conditions that have no answer: those count in full."""
    fewer = DEFAULT.model_copy(
        update={
            "factors": tuple(one for one in factors if data.draw(st.booleans())),
            "floors": tuple(one for one in floors if data.draw(st.booleans())),
        }
    )
    more = DEFAULT.model_copy(update={"factors": tuple(factors), "floors": tuple(floors)})
    before, after = assess(fewer, some), assess(more, some)
    assert 0 <= before.score <= after.score <= 100
    assert after.level >= before.level
    assert (after.score, after.level) == score_of(DEFAULT.levels, reversed(after.factors))


def _only(factors: tuple[FactorRule, ...] = (), floors: tuple[FloorRule, ...] = ()) -> Policy:
    return DEFAULT.model_copy(update={"factors": factors, "floors": floors})


def test_a_condition_without_an_answer_counts_in_full():
    broken = "tools[3] == 'x'"
    answer = assess(_only((FactorRule(id="f", when=broken, points=30, words="Odd."),)), facts())
    assert (answer.score, answer.factors[0].words) == (30, "Odd." + UNCLEAR)
    answer = assess(_only((FactorRule(id="f", when="true", points="1 / amount_usd", words="Odd."),)), facts())
    assert answer.level is RiskLevel.L5
    answer = assess(_only((), (FloorRule(id="f", when=broken, at_least=RiskLevel.L4, words="Odd."),)), facts())
    assert answer.level is RiskLevel.L4


def test_tools_stand_in_an_order_that_is_the_same_tomorrow():
    names = [f"tool{number:02}" for number in range(30)]
    assert condition.variables(facts(tools=names[::-1]))["tools"] == names


def test_the_names_that_conditions_may_use_are_those_that_there_are():
    assert list(condition.variables(facts())) == list(condition.NAMES)
