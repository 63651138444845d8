"""What the scripted upstream answers: pure, so that the same request always gets the same words and tokens.

A script is a fenced block ```` ```awgp-script ```` with a JSON array of steps, in the first user message (else in a
system message). The number of assistant messages so far is the number of the step to play.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

SAID = "[scripted, not a model] "
FINGERPRINT = "awgp-scripted-not-a-model"
MOST_CALLS_UNSCRIPTED = 3
MOST_CHOICES = 16
BYTES_A_TOKEN = 4
"""INVARIANT: a token is four bytes of UTF-8, rounded up; of a prompt, of its `messages` and `tools` as compact JSON."""

_BLOCK = re.compile(r"```awgp-script\s*\n(.*?)```", re.DOTALL)
_SCHEMA_DEPTH = 8

Json = dict[str, Any]


class BadScriptError(ValueError):
    """The request, or the script in it, cannot be played; the message says where."""


class ToolStep(BaseModel):
    """One call of a tool."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool: str
    arguments: Json | str = Field(default_factory=dict)


class Step(BaseModel):
    """One answer.

    Attributes:
        text: What is said; with `tool` or `tools` it stands beside the calls.
        usage: Put over the computed usage; null says none at all.
        cut_after: The connection ends after so many pieces (plain: after half of the body).
        chunks: Pieces that a streamed text comes in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str = ""
    tool: str | None = None
    arguments: Json | str = Field(default_factory=dict)
    tools: tuple[ToolStep, ...] = ()
    delay_ms: int = Field(default=0, ge=0, le=120_000)
    chunk_delay_ms: int = Field(default=0, ge=0, le=60_000)
    usage: Json | None = None
    status: int = Field(default=200, ge=200, le=599)
    cut_after: int | None = Field(default=None, ge=0)
    chunks: int | None = Field(default=None, ge=1, le=10_000)


_SCRIPT = TypeAdapter(tuple[Step, ...])


@dataclass(frozen=True)
class Played:
    """An answer, ready to be sent plain or in pieces.

    Attributes:
        calls: OpenAI's `tool_calls`, without ids.
        choices: How often it is given (`n`).
        prompt_tokens: Of the whole request.
        completion_tokens: Of one choice.
        usage: Of all choices; None when none is to arrive.
    """

    step: Step
    text: str
    calls: tuple[Json, ...]
    finish: str
    choices: int
    prompt_tokens: int
    completion_tokens: int
    usage: Json | None


def play(body: Json) -> Played:
    """Work out the answer to a chat completion request.

    Raises:
        BadScriptError: No messages, or a script that has another shape.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadScriptError("messages: a list with at least one message is needed")
    step = _step(_objects(messages), body)
    calls = _calls(step)
    text = step.text if _is_structured(body) else SAID + step.text
    finish = "tool_calls" if calls else "stop"
    room = _room(body)
    spent = tokens(text) + sum(tokens(call["name"] + call["arguments"]) for call in calls)
    if room is not None and spent > room:
        text, calls, finish, spent = _cut(text, room), (), "length", room
    choices = body.get("n") if isinstance(body.get("n"), int) else 1
    choices = max(1, min(cast("int", choices), MOST_CHOICES))
    prompt = tokens(compact({"messages": messages, "tools": body.get("tools") or []}))
    usage: Json | None = usage_of(prompt, spent * choices)
    if "usage" in step.model_fields_set:
        usage = None if step.usage is None else {**usage_of(prompt, spent * choices), **step.usage}
    return Played(step, text, calls, finish, choices, prompt, spent, usage)


def usage_of(prompt: int, completion: int) -> Json:
    """Usage as OpenAI writes it."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def tokens(text: str) -> int:
    """How many tokens a text counts for."""
    return -(-len(text.encode()) // BYTES_A_TOKEN)


def compact(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def pieces(text: str, count: int | None) -> list[str]:
    """The text in `count` pieces of equal length (fewer where it is too short), or in pieces of 16 characters."""
    if not text:
        return []
    size = -(-len(text) // count) if count else 16
    return [text[start : start + size] for start in range(0, len(text), size)]


def _step(messages: list[Json], body: Json) -> Step:
    script = _script(messages)
    done = sum(message.get("role") == "assistant" for message in messages)
    if script is None:
        return _unscripted(messages, body)
    if done >= len(script):
        return Step(text=f"The script has {len(script)} steps, and all have been played.")
    return script[done]


def _script(messages: list[Json]) -> tuple[Step, ...] | None:
    first_user = next((message for message in messages if message.get("role") == "user"), None)
    system = [message for message in messages if message.get("role") in {"system", "developer"}]
    for message in (first_user, *system):
        found = _BLOCK.search(_text_of(message)) if message else None
        if found is None:
            continue
        try:
            return _SCRIPT.validate_json(found[1])
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, ("awgp-script", *fault["loc"])))
            raise BadScriptError(f"{where}: {fault['msg']}") from error
    return None


def _text_of(message: Json) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    texts = [part.get("text") for part in _objects(content)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _objects(value: Any) -> list[Json]:
    """Those entries of a list that are objects; none when it is no list."""
    entries = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("Json", entry) for entry in entries if isinstance(entry, dict)]


def _unscripted(messages: list[Json], body: Json) -> Step:
    """Without a script: a few calls of the first tool that is offered, then a fixed text."""
    choice = body.get("tool_choice")
    offered = [tool.get("function") for tool in _objects(body.get("tools"))]
    functions = _objects(offered)
    if isinstance(choice, dict):
        wanted = cast("Json", cast("Json", choice).get("function") or {}).get("name")
        functions = [function for function in functions if function.get("name") == wanted] or functions
    results = sum(message.get("role") == "tool" for message in messages)
    if functions and choice != "none" and results < MOST_CALLS_UNSCRIPTED:
        schema: Any = functions[0].get("parameters")
        made = example_of(schema, schema)
        arguments = cast("Json", made) if isinstance(made, dict) else {}
        return Step(tool=str(functions[0].get("name", "")), arguments=arguments)
    return Step(text="There is no script in the request, so this is all there is to say.")


def _calls(step: Step) -> tuple[Json, ...]:
    asked = step.tools
    if step.tool is not None:
        asked = (ToolStep(tool=step.tool, arguments=step.arguments), *asked)
    return tuple(
        {"name": call.tool, "arguments": call.arguments if isinstance(call.arguments, str) else compact(call.arguments)}
        for call in asked
    )


def _is_structured(body: Json) -> bool:
    """An answer that must be JSON keeps its shape: then name, fingerprint and header alone say what it is."""
    wanted = body.get("response_format")
    return isinstance(wanted, dict) and cast("Json", wanted).get("type") in {"json_object", "json_schema"}


def _room(body: Json) -> int | None:
    caps = [body.get(name) for name in ("max_tokens", "max_completion_tokens")]
    given = [cap for cap in caps if isinstance(cap, int) and cap > 0]
    return min(given) if given else None


def _cut(text: str, room: int) -> str:
    return text.encode()[: room * BYTES_A_TOKEN].decode(errors="ignore")


def example_of(schema: Any, root: Any, depth: int = 0) -> Any:
    """A small value that a JSON schema accepts, for the keywords that tools use."""
    if not isinstance(schema, dict) or depth > _SCHEMA_DEPTH:
        return None
    rules = _resolved(cast("Json", schema), root)
    for given in ("const", "default"):
        if given in rules:
            return rules[given]
    for listed in ("enum", "examples"):
        if rules.get(listed):
            return rules[listed][0]
    for several in ("anyOf", "oneOf", "allOf"):
        if rules.get(several):
            return example_of(rules[several][0], root, depth + 1)
    return _example_of_type(rules, root, depth)


def _resolved(rules: Json, root: Any) -> Json:
    reference = rules.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return rules
    found = root
    for name in reference[2:].split("/"):
        found = cast("Json", found).get(name) if isinstance(found, dict) else None
    return cast("Json", found) if isinstance(found, dict) else {}


def _example_of_type(rules: Json, root: Any, depth: int) -> Any:
    kind: Any = rules.get("type")
    if isinstance(kind, list) and kind:
        kind = cast("list[Any]", kind)[0]
    if kind == "object" or "properties" in rules:
        properties = cast("Json", rules.get("properties") or {})
        needed = cast("list[str]", rules.get("required") or [])
        return {name: example_of(properties.get(name) or {"type": "string"}, root, depth + 1) for name in needed}
    if kind == "array":
        least = int(rules.get("minItems") or 0)
        return [example_of(rules.get("items") or {"type": "string"}, root, depth + 1) for _ in range(min(least, 4))]
    if kind in {"integer", "number"}:
        return rules.get("minimum", 1)
    if kind == "boolean":
        return True
    return None if kind == "null" else "example".ljust(int(rules.get("minLength") or 0), "e")
