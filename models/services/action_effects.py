"""The effect of an action: read by the kind of its connector, which must be one that the assistant may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import rfc8785
from pydantic import ValidationError
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import EFFECTS, ConnectorKind, Effect
from models.domain.errors import InvalidInput
from models.domain.work_item import ExternalEffect
from models.services import connectors
from models.services.plain_json import plain_json
from models.tables.tenancy import AssistantRow

MAX_PARAMETERS_BYTES = 64 * 1024
MAX_EFFECT_BYTES = 192 * 1024
_PINNED = ("connector_kind", "connector_version")
"""What a stored effect says beside what was asked; part of its digest, and never the agent's to say."""


@dataclass(frozen=True)
class Resolved:
    """An effect that a connector could perform.

    Attributes:
        stored: As it is digested, approved and performed, with the connector's kind and version.
        seen_by: Who notices, where the connector's configuration says so.
    """

    effect: Effect
    stored: dict[str, Any]
    seen_by: ExternalEffect | None


async def resolve(session: AsyncSession, assistant: AssistantRow, asked: dict[str, Any]) -> Resolved:
    """Read an effect that somebody wrote, and that has been `checked`.

    Raises:
        InvalidInput: There is no such connector for this assistant, or the effect is none that it performs.
    """
    name = asked.get("connector")
    connector = await connectors.find_for(session, assistant, name) if isinstance(name, str) else None
    # One that exists and one that does not are told alike: an agent does not learn what else the company has.
    if connector is None:
        may = ", ".join(sorted(assistant.connectors)) or "none"
        raise invalid("effect.connector", f"is none that this assistant may use; it may use {may}")
    kind = ConnectorKind(connector.kind)
    effect = _read(kind, asked)
    connectors.refuse_unperformable(connectors.config_of(connector), effect)
    pinned = {"connector_kind": kind.value, "connector_version": connector.version}
    stored = effect.model_dump(mode="json", by_alias=True, exclude_none=True) | pinned
    says = connector.config.get("external_effect")
    return Resolved(effect, stored, ExternalEffect(says) if says in set(ExternalEffect) else None)


def stored_effect(stored: dict[str, Any]) -> Effect:
    """The effect of a row, as it was resolved."""
    asked = {name: value for name, value in stored.items() if name not in _PINNED}
    return _read(ConnectorKind(stored["connector_kind"]), asked)


def checked(where: str, document: dict[str, Any], most: int) -> dict[str, Any]:
    """A stranger's JSON that PostgreSQL can hold and that has one canonical form, of at most so many bytes.

    Raises:
        InvalidInput: It is none.
    """
    try:
        plain_json(document)
        size = len(rfc8785.dumps(document))
    except (ValueError, RecursionError) as error:
        raise invalid(where, str(error)[:200]) from error
    if size > most:
        raise invalid(where, f"is larger than {most} bytes")
    return document


def invalid(where: str, what: str) -> InvalidInput:
    """The refusal of one field."""
    return InvalidInput(f"{where}: {what}", errors=[{"where": where, "what": what}])


def _read(kind: ConnectorKind, asked: dict[str, Any]) -> Effect:
    try:
        return EFFECTS[kind].model_validate(asked)
    except ValidationError as error:
        errors = [
            {
                "where": ".".join(["effect", *(str(part) for part in fault["loc"])]),
                "what": fault["msg"].removeprefix("Value error, "),
            }
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise InvalidInput(f"{errors[0]['where']}: {errors[0]['what']}", errors=errors[:50]) from error
