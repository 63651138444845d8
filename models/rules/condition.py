"""CEL over the facts: which names a condition may use, how it is checked when written, and run.

A condition is data that a tenant wrote. It may use the names of `variables`, the operators and a few
functions that need neither clock nor randomness, and it is kept from growing: loops multiply,
so there are at most two.
"""

import re
from functools import lru_cache
from typing import Any

import cel

from models.domain.money import NANO_PER_USD
from models.domain.work_item import KNOWN_KINDS, AssistantRecord, WorkItemFacts

MAX_LOOPS = 2
_FUNCTIONS = frozenset({"size", "contains", "startsWith", "endsWith", "int"})
_MACROS = ("all", "exists", "exists_one", "filter", "map")
_LOOP = re.compile(rf"\b(?:{'|'.join(_MACROS)})\b")
_LOOP_NAME = re.compile(rf"\b(?:{'|'.join(_MACROS)})\s*\(\s*([A-Za-z_]\w*)\s*,")
_LITERAL = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'")
_MEMBER = re.compile(r"\bassistant\s*\.\s*([A-Za-z_]\w*)")
_OPERATOR = re.compile(r"[^A-Za-z]")

# What a condition that cannot be worked out raises (measured): all of these are `Exception`s of the engine.
_ENGINE_ERRORS = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)


class ConditionError(ValueError):
    """The expression is not acceptable, or gave no answer of the right type."""


def variables(facts: WorkItemFacts) -> dict[str, Any]:
    """What conditions see of the facts, by the names that they use."""
    return {
        "kind": facts.kind,
        "known_kind": facts.kind in KNOWN_KINDS,
        "data_class": facts.data_class.value,
        "reversibility": facts.reversibility.value,
        "external_effect": facts.external_effect.value,
        "amount_nano_usd": int(facts.amount_nano_usd),
        # Whole dollars, rounded up: nothing slips below a threshold by its cents.
        "amount_usd": -(-facts.amount_nano_usd // NANO_PER_USD),
        # Sorted, because a set has no order that is the same tomorrow.
        "tools": sorted(facts.tools),
        "assistant": facts.assistant.model_dump(),
    }


def scene(facts: WorkItemFacts) -> cel.Context:
    """The variables, made ready once for many conditions: seventy times quicker than a dict for each."""
    return cel.Context(variables=variables(facts))


NAMES = (
    "kind",
    "known_kind",
    "data_class",
    "reversibility",
    "external_effect",
    "amount_nano_usd",
    "amount_usd",
    "tools",
    "assistant",
)
_ASSISTANT_NAMES = tuple(AssistantRecord.model_fields)


def check(expression: str) -> None:
    """Refuse what does not parse or uses a name, function or loop that it may not.

    Raises:
        ConditionError: with words for whoever wrote it.
    """
    program = _compiled(expression)
    if len(_LOOP.findall(expression)) > MAX_LOOPS:
        raise ConditionError(f"more than {MAX_LOOPS} loops ({', '.join(_MACROS)})")
    bare = _LITERAL.sub("''", expression)
    bound = set(_LOOP_NAME.findall(bare))
    hidden = sorted(bound & set(NAMES))
    if hidden:
        raise ConditionError(f"the loop's variable {hidden[0]!r} hides the fact of that name")
    unknown = sorted(set(program.variables()) - bound - set(NAMES))
    if unknown:
        raise ConditionError(f"unknown name {unknown[0]!r}; there are {', '.join(NAMES)}")
    for member in _MEMBER.findall(bare):
        if member not in _ASSISTANT_NAMES:
            names = ", ".join(_ASSISTANT_NAMES)
            raise ConditionError(f"unknown name 'assistant.{member}'; an assistant has {names}")
    for function in program.functions():
        if not _OPERATOR.match(function) and function not in _FUNCTIONS:
            raise ConditionError(f"unknown function {function!r}; there are {', '.join(sorted(_FUNCTIONS))}")


def holds(expression: str, values: cel.Context) -> bool:
    """Whether the condition is true in the scene.

    Raises:
        ConditionError: it gave no answer, or one that is not true or false.
    """
    answer = _run(expression, values)
    if not isinstance(answer, bool):
        raise ConditionError(f"gives {_named(answer)}, and a condition gives true or false")
    return answer


def number(expression: str, values: cel.Context) -> int:
    """The integer that the expression gives, unbounded.

    Raises:
        ConditionError: it gave no answer, or one that is not an integer.
    """
    answer = _run(expression, values)
    if isinstance(answer, bool) or not isinstance(answer, int):
        raise ConditionError(f"gives {_named(answer)}, and points are a whole number")
    return answer


@lru_cache(maxsize=4096)
def _compiled(expression: str) -> cel.Program:
    try:
        return cel.compile(expression)
    except ValueError as error:
        raise ConditionError(f"is not CEL: {_first_fault(str(error))}") from error


def _run(expression: str, values: cel.Context) -> object:
    program = _compiled(expression)
    try:
        return program.execute(values)
    except _ENGINE_ERRORS as error:
        raise ConditionError(f"has no answer: {str(error)[:200]}") from error


def _first_fault(message: str) -> str:
    """`1:4: mismatched input …` out of the engine's many lines."""
    found = re.search(r"<input>:(\d+):(\d+): (?:Syntax error: )?(.*)", message)
    if found is None:
        return message.splitlines()[0][:200]
    place = f"line {found[1]}, column {found[2]}"
    return f"{place}: {found[3][:160]}"


def _named(value: object) -> str:
    names = {"str": "a text", "bool": "true or false", "float": "a decimal number", "int": "a number"}
    return names.get(type(value).__name__, f"a {type(value).__name__}")
