"""Read a policy from its YAML text, or say what is wrong with it and where."""

import hashlib
from functools import lru_cache
from importlib.resources import files
from typing import Any

import cel
import rfc8785
from pydantic import ValidationError

from models.domain.policy import InvalidPolicy, Policy
from models.domain.work_item import (
    AssistantRecord,
    DataClass,
    ExternalEffect,
    KnownKind,
    Reversibility,
    WorkItemFacts,
)
from models.rules import condition
from models.rules.policy_text import Document, TextError, read

MAX_ERRORS = 20


def load(text: str) -> Policy:
    """Parse and validate a policy, its CEL conditions included.

    Raises:
        InvalidPolicy: `extra["errors"]` lists {where, line, what}; the detail is the first of them.
    """
    try:
        document = read(text)
    except TextError as error:
        raise _invalid([_error("", error.line, str(error))]) from error
    try:
        policy = Policy.model_validate(document.data)
    except ValidationError as error:
        raise _invalid(_shape_errors(document, error)) from error
    errors = _condition_errors(document, policy)
    if errors:
        raise _invalid(errors)
    return policy


def default_text() -> str:
    """The text of the policy that ships with AWGP, comments included."""
    return files("models.rules").joinpath("default_policy.yaml").read_text(encoding="utf-8")


def digest(policy: Policy) -> str:
    """The hex SHA-256 over the policy's RFC 8785 canonical JSON: comments and layout make no difference."""
    # A frozen pydantic model has a hash, which the type checker cannot see.
    return _digest(policy)  # pyright: ignore[reportArgumentType]


@lru_cache(maxsize=64)
def _digest(policy: Policy) -> str:
    return hashlib.sha256(rfc8785.dumps(policy.model_dump(mode="json"))).hexdigest()


def samples() -> tuple[WorkItemFacts, ...]:
    """Facts over which conditions are tried when a policy is written: each value, and the extremes."""
    kinds = [*KnownKind, "something_new"]
    amounts = [0, 1, 10**9, 12_345 * 10**9, 5_000_000 * 10**9, 9 * 10**18]
    toolsets = [frozenset[str](), frozenset({"files.read"}), frozenset({"mail.send", "payments.write"})]
    records = [AssistantRecord(), AssistantRecord(runs=1000, failed=7, rejected=3, age_days=400)]
    combinations = [
        (data, undo, effect) for data in DataClass for undo in Reversibility for effect in ExternalEffect
    ]
    return tuple(
        WorkItemFacts.model_validate(
            {
                "kind": kinds[index % len(kinds)],
                "data_class": data,
                "reversibility": undo,
                "external_effect": effect,
                "amount_nano_usd": amounts[index % len(amounts)],
                "tools": toolsets[index % len(toolsets)],
                "assistant": records[index % len(records)],
            }
        )
        for index, (data, undo, effect) in enumerate(combinations * 2)
    )


def _condition_errors(document: Document, policy: Policy) -> list[dict[str, Any]]:
    tried = [condition.scene(facts) for facts in samples()]
    errors: list[dict[str, Any]] = []
    for section, rules in (("factors", policy.factors), ("floors", policy.floors)):
        for index, rule in enumerate(rules):
            points = getattr(rule, "points", None)
            field, what = _rule_error(rule.when, points, tried)
            if what:
                path = (section, index, field)
                errors.append(_error(f"{_path(path)} of {rule.id!r}", document.line(path), what))
    return errors


def _rule_error(when: str, points: object, tried: list[cel.Context]) -> tuple[str, str]:
    """The field of a rule that is wrong and what is wrong with it, or two empty texts."""
    field = "when"
    try:
        condition.check(when)
        applies = [condition.holds(when, values) for values in tried]
        field = "points"
        if isinstance(points, str):
            condition.check(points)
            for values, counts in zip(tried, applies, strict=True):
                # It must give a number even where the rule does not apply: the samples are not every fact.
                if condition.number(points, values) < 0 and counts:
                    return field, "gives less than 0 points, and points never lower a score"
    except condition.ConditionError as error:
        return field, str(error)
    return "", ""


def _shape_errors(document: Document, error: ValidationError) -> list[dict[str, Any]]:
    errors: list[dict[str, Any]] = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        # Pydantic adds the branch of a union to the path, which nobody wrote.
        path = document.known(fault["loc"], missing=fault["type"] == "missing")
        found = _error(_path(path), document.line(path), fault["msg"].removeprefix("Value error, "))
        if found not in errors:
            errors.append(found)
    return errors


def _path(path: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _error(where: str, line: int, what: str) -> dict[str, Any]:
    return {"where": where, "line": line, "what": what}


def _invalid(errors: list[dict[str, Any]]) -> InvalidPolicy:
    first = errors[0]
    place = f"line {first['line']}" + (f", {first['where']}" if first["where"] else "")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return InvalidPolicy(f"{place}: {first['what']}{more}", errors=errors[:MAX_ERRORS])
