"""Field types and small bodies that many routes speak."""

from __future__ import annotations

import json
from typing import Annotated, Any

import rfc8785
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from models.domain.errors import InvalidInput
from models.domain.money import NanoUsd, format_usd, parse_usd
from models.services.plain_json import plain_json

MAX_PARAMETERS_BYTES = 16_384


class Body(BaseModel):
    """What a caller sends: a field that it does not know is refused, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Answer(BaseModel):
    """What the API answers."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


def _amount(text: str) -> str:
    parse_usd(text)
    return text


MoneyText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=40),
    AfterValidator(_amount),
    Field(description="An amount in USD, at most nine decimals.", examples=["12.34 USD"]),
]
Title = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
Reason = Annotated[str, StringConstraints(max_length=1000, strip_whitespace=True)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def nano(text: str) -> NanoUsd:
    """The integer behind a `MoneyText`."""
    return parse_usd(text)


def words(amount: int | None) -> str | None:
    """An amount for people; None stays None."""
    return None if amount is None else format_usd(amount)


def _canonical(value: dict[str, Any]) -> dict[str, Any]:
    plain_json(value)
    # Parameters are part of what is digested and approved, so they must have one canonical form (RFC 8785).
    try:
        size = len(rfc8785.dumps(value))
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise ValueError(f"has no canonical JSON form: {str(error)[:160]}") from error
    if size > MAX_PARAMETERS_BYTES:
        raise ValueError(f"is larger than {MAX_PARAMETERS_BYTES} bytes")
    return value


Parameters = Annotated[
    dict[str, Any],
    AfterValidator(_canonical),
    Field(description=f"Free JSON for the assistant, at most {MAX_PARAMETERS_BYTES} bytes; numbers within ±2^53."),
]


def invalid_body(error: ValidationError) -> InvalidInput:
    """The domain's own refusal of a body that the schema let pass."""
    errors = [
        {
            "where": "body" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]),
            "what": fault["msg"].removeprefix("Value error, "),
        }
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    return InvalidInput(f"{errors[0]['where']}: {errors[0]['what']}", errors=errors)


class FieldFault(Answer):
    """One thing that is wrong with a request."""

    where: str = Field(examples=["body.facts.data_class"])
    what: str


class Problem(Answer):
    """A problem document (RFC 9457); some kinds carry further members."""

    type: str = Field(examples=["https://awgp.example.com/problems/invalid-input"])
    title: str
    status: int
    detail: str
    errors: list[FieldFault] | None = None


def sse(event: str, data: dict[str, Any], event_id: str | None = None) -> bytes:
    """One server-sent event; the data is one line of JSON."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {event}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
