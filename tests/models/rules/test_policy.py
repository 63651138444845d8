import re
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.policy import InvalidPolicy, Policy
from models.rules.policy import default_text, digest, load
from sandbox.spec import Limits

TEXT = default_text()


def refused(text: str) -> list[dict[str, Any]]:
    with pytest.raises(InvalidPolicy) as caught:
        load(text)
    assert caught.value.status == 422
    assert caught.value.extra["errors"]
    return caught.value.extra["errors"]


def line_of(text: str, needle: str) -> int:
    return text[: text.index(needle)].count("\n") + 1


def test_the_policy_that_ships_is_valid_and_small():
    policy = load(TEXT)
    assert policy.policy.name == "default"
    assert len(TEXT.encode()) < 16 * 1024
    assert max(map(len, TEXT.splitlines())) <= 120


def test_its_limits_are_limits_of_a_sandbox():
    assert Limits.model_validate(load(TEXT).limits.model_dump()).wall_seconds == 900


def test_the_digest_is_of_the_meaning_and_not_of_the_layout():
    policy = load(TEXT)
    rewritten = yaml.safe_dump(yaml.safe_load(TEXT), sort_keys=True)
    assert rewritten != TEXT
    assert digest(load(rewritten)) == digest(policy)
    assert re.fullmatch(r"[0-9a-f]{64}", digest(policy))
    assert digest(load(TEXT.replace("points: 25", "points: 26", 1))) != digest(policy)
    assert digest(Policy.model_validate_json(policy.model_dump_json())) == digest(policy)


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        (
            'when: "!known_kind"',
            'when: "!known_kin"',
            "factors[0].when of 'kind_unknown'",
            "unknown name 'known_kin'",
        ),
        (
            'when: "!known_kind"',
            'when: "!known_kind &&"',
            "factors[0].when of 'kind_unknown'",
            "is not CEL: line 1",
        ),
        ('when: "!known_kind"', 'when: "1 + 1"', "factors[0].when of 'kind_unknown'", "gives a number"),
        ('when: "!known_kind"', 'when: "true || kind > 3"', "", ""),
        ('when: "!known_kind"', 'when: "kind > 3"', "factors[0].when of 'kind_unknown'", "has no answer"),
        (
            "assistant.rejected >= 3",
            "false && assistant.rejectd >= 3",
            "factors[24].when of 'assistant_rejected'",
            "unknown name 'assistant.rejectd'",
        ),
        ("size(tools) > 8", "now() > 8", "factors[21].when of 'tools_many'", "unknown function 'now'"),
        (
            "size(tools) > 8",
            "type(tools) == 'x'",
            "factors[21].when of 'tools_many'",
            "unknown function 'type'",
        ),
        (
            "size(tools) > 8",
            "tools.exists(a, tools.exists(b, tools.exists(c, a == b && b == c)))",
            "factors[21].when of 'tools_many'",
            "more than 2 loops",
        ),
        (
            "size(tools) > 8",
            "tools.exists(kind, kind == 'x')",
            "factors[21].when of 'tools_many'",
            "hides the fact",
        ),
        ("size(tools) > 8", "tools[7] == 'x'", "factors[21].when of 'tools_many'", "has no answer"),
        (
            "amount_usd >= 300000 ? 30 : amount_usd / 10000",
            "0 - amount_usd",
            "factors[14].points of 'amount_size'",
            "less than 0 points",
        ),
        (
            "amount_usd >= 300000 ? 30 : amount_usd / 10000",
            "1.5",
            "factors[14].points of 'amount_size'",
            "a decimal number",
        ),
        ("points: 25", "points: -1", "factors[0].points", "greater than or equal to 0"),
        ("points: 25", "points: 101", "factors[0].points", "less than or equal to 100"),
        ("at_least: L5", "at_least: L6", "floors[3].at_least", "'L5'"),
        ("id: kind_deploy", "id: data_internal", "", "'data_internal' is used twice"),
        ("tier: holding", "tier: tenant", "approvals", "holding"),
        ("  L3: 45", "  L3: 25", "levels", "L3 (25) must start above L2 (25)"),
        ("expires_after: 172800", "expires_after: 3600", "approvals.L2", "remind_after must rise"),
        ("minimum_nano_usd: 100000", "minimum_nano_usd: 0.5", "prices.minimum_nano_usd", "valid integer"),
        ("  minimum_nano_usd: 100000", "", "prices.minimum_nano_usd", "Field required"),
        ("quorum: 2", "quorum: 0", "approvals.L5.quorum", "greater than or equal to 1"),
        ("money:\n", "money:\n  surprise: 1\n", "money.surprise", "not permitted"),
        ('version: "1"', "version: 1.0", "policy.version", "valid string"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(old: str, new: str, where: str, what: str):
    assert old in TEXT
    text = TEXT.replace(old, new, 1)
    if not what and not where:  # wrong in a branch that is never reached: nothing to say
        load(text)
        return
    errors = refused(text)
    found = errors[0]
    assert found["where"] == where
    assert what in found["what"]
    assert 1 <= found["line"] <= text.count("\n") + 1


def test_the_line_is_the_line_of_the_mistake():
    text = TEXT.replace("size(tools) > 8", "siz(tools) > 8", 1)
    assert refused(text)[0]["line"] == line_of(text, "siz(tools)")
    text = TEXT.replace("at_least: L5", "at_least: L9", 1)
    assert refused(text)[0]["line"] == line_of(text, "at_least: L9")


def test_every_mistake_is_listed():
    text = TEXT.replace("points: 25", "points: many", 1).replace("size(tools) > 8", "siz(tools)", 1)
    assert [error["where"] for error in refused(text)] == [
        "factors[0].points of 'kind_unknown'",
        "factors[21].when of 'tools_many'",
    ]


BOMB = "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]\n"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "is empty"),
        ("# nothing\n", 1, "is empty"),
        ("just a text", 1, "valid dictionary"),
        ("[1, 2]", 1, "valid dictionary"),
        (BOMB, 1, "aliases and anchors"),
        ("a: 1\nb: *a\n", 2, "aliases and anchors"),
        ("a: 1\na: 2\n", 2, "'a' stands twice"),
        ("a: !!python/object/apply:os.system [x]", 1, "the tag"),
        ("a: !x 1", 1, "the tag"),
        ("a: 1\n---\nb: 1\n", 2, "more than one document"),
        ("[" * 60_000, 1, "nested more than"),
        ("{a: " * 10_000, 1, "nested more than"),
        ("a: 1\nb: [1\n", 3, "is not YAML"),
        ("a: 1\x00", 1, "is not YAML"),
        ("a: \udc80", 1, "is not Unicode"),
        ("a: 2026-13-45", 1, "cannot be read"),
        ("? [1, 2]\n: 3\n", 1, "a key must be a plain word"),
        ("<<: {a: 1}\n", 1, "a key must be a plain word"),
        ("a: " + "x" * 70_000, 1, "at most 65536"),
        ("a: " + "9" * 10_000, 1, ""),
    ],
)
def test_strangers_yaml_is_refused_quickly(text: str, line: int, what: str):
    found = refused(text)[0]
    assert what in found["what"]
    assert found["line"] == line


@given(st.text(max_size=200))
def test_any_text_is_a_policy_or_an_error_with_a_place(text: str):
    assert all({"where", "line", "what"} == set(error) for error in refused(text))


@settings(max_examples=40)
@given(st.text(alphabet="ab().'\"!&|<>=+-*/%?:[]{}, 019\n\\truekindtoolsassistant", max_size=60))
def test_any_condition_is_accepted_or_refused_with_its_place(expression: str):
    document = yaml.safe_load(TEXT)
    document["factors"][0]["when"] = expression
    try:
        load(yaml.safe_dump(document))
    except InvalidPolicy as error:
        places = [str(found["where"]) for found in error.extra["errors"]]
    else:
        places = []
    assert all(place.startswith("factors[0].when") for place in places)
