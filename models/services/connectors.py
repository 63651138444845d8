"""Connectors: how effects leave the house. Set up by a company's admins; an assistant may name those on its list."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import ConnectorKind, Effect, FileEffect, HttpEffect, N8nEffect
from models.domain.connector import (
    CONFIGS,
    FORBIDDEN_HEADERS,
    Connector,
    FileConnector,
    HttpConnector,
    N8nConnector,
    NewConnector,
)
from models.domain.errors import Conflict, InvalidInput, NotFound
from models.domain.principal import Principal
from models.repositories import connectors as rows
from models.repositories import tenants as tenant_rows
from models.rules import outbound
from models.services import audit
from models.services.ids import new_id
from models.services.secrets import names_in
from models.tables.actions import ConnectorRow
from models.tables.tenancy import AssistantRow


async def create(session: AsyncSession, principal: Principal, body: NewConnector) -> ConnectorRow:
    """Set up a connector of the principal's company.

    Raises:
        InvalidInput: Its configuration is none of its kind, or names a secret that there is not.
        Conflict: The name is taken.
    """
    config = await _checked(session, principal, body.kind, body.config)
    if await rows.find(session, principal.tenant_id, body.name) is not None:
        raise Conflict(f"there is a connector {body.name} already")
    row = ConnectorRow(
        tenant_id=principal.tenant_id,
        id=new_id(),
        name=body.name,
        kind=body.kind.value,
        config=config,
        enabled=body.enabled,
    )
    session.add(row)
    await session.flush()
    await session.refresh(row)
    _record(session, principal, "connector.created", row)
    return row


async def update(
    session: AsyncSession, principal: Principal, name: str, version: int, config: dict[str, Any], *, enabled: bool
) -> ConnectorRow:
    """Replace a connector's configuration, if nobody else has since `version`.

    What was approved of an earlier version is not performed any more: its digest names that version.

    Raises:
        NotFound: There is none of this name.
        Conflict: Somebody else has changed it.
        InvalidInput: As `create`.
    """
    row = await rows.find(session, principal.tenant_id, name, lock=True)
    if row is None:
        raise NotFound(f"there is no connector {name}")
    if row.version != version:
        raise Conflict(f"the connector is at version {row.version} by now; read it again", version=row.version)
    row.config = await _checked(session, principal, ConnectorKind(row.kind), config)
    row.enabled, row.version = enabled, row.version + 1
    row.updated_at = await tenant_rows.database_now(session)
    session.add(row)
    await session.flush()
    _record(session, principal, "connector.changed", row)
    return row


async def read(session: AsyncSession, principal: Principal, name: str) -> ConnectorRow:
    """One connector of the principal's company.

    Raises:
        NotFound: There is none of this name.
    """
    row = await rows.find(session, principal.tenant_id, name)
    if row is None:
        raise NotFound(f"there is no connector {name}")
    return row


async def list_all(session: AsyncSession, principal: Principal) -> list[ConnectorRow]:
    """The connectors of the principal's company, by name."""
    return await rows.all_of(session, principal.tenant_id)


async def find_for(session: AsyncSession, assistant: AssistantRow, name: str) -> ConnectorRow | None:
    """A connector that is switched on and that the assistant may name; None tells nothing of what else there is."""
    row = await rows.find(session, assistant.tenant_id, name)
    return row if row is not None and row.enabled and row.name in assistant.connectors else None


def config_of(row: ConnectorRow) -> Connector:
    """A stored configuration.

    Raises:
        InvalidInput: It cannot be read any more.
    """
    return _parsed(ConnectorKind(row.kind), row.config)


def refuse_unperformable(config: Connector, effect: Effect) -> None:
    """Refuse an effect that this connector would not perform, before anybody is asked about it.

    Raises:
        InvalidInput: Where and why.
    """
    try:
        match config, effect:
            case HttpConnector(), HttpEffect():
                if effect.method not in config.methods:
                    raise _invalid("effect.method", f"this connector does {', '.join(config.methods)} alone")
                outbound.target_of(config, path=effect.path, url=effect.url)
                _refuse_headers(config, effect)
            case N8nConnector(), N8nEffect():
                outbound.target_of(config, path=effect.path, url=None)
            case FileConnector(), FileEffect():
                pass
            case _:
                raise _invalid("effect", "is not of this connector's kind")
    except outbound.NotAllowedError as error:
        raise _invalid("effect.path" if getattr(effect, "url", None) is None else "effect.url", str(error)) from error


def _refuse_headers(config: HttpConnector, effect: HttpEffect) -> None:
    ours = {name.lower() for name in (config.idempotency_header,) if name}
    if config.credential is not None and config.credential.header_name:
        ours.add(config.credential.header_name.lower())
    for name in effect.headers:
        if name.lower() in FORBIDDEN_HEADERS | ours or name.lower().startswith(("proxy-", "sec-", "x-forwarded-")):
            raise _invalid(f"effect.headers.{name}", "is not the agent's to set")
        if not effect.headers[name].isascii():
            raise _invalid(f"effect.headers.{name}", "is printable ASCII")


async def _checked(
    session: AsyncSession, principal: Principal, kind: ConnectorKind, config: dict[str, Any]
) -> dict[str, Any]:
    parsed = _parsed(kind, config).model_dump(mode="json", by_alias=True, exclude_none=True)
    for name in names_in(parsed):
        if await rows.secret(session, principal.tenant_id, name) is None:
            raise _invalid("config.credential.secret", f"there is no secret {name}")
    return parsed


def _parsed(kind: ConnectorKind, config: dict[str, Any]) -> Connector:
    try:
        return CONFIGS[kind].model_validate_json(json.dumps(config))  # lists become tuples, strict numbers stay strict
    except ValidationError as error:
        errors = [
            {
                "where": ".".join(["config", *(str(part) for part in fault["loc"])]),
                "what": fault["msg"].removeprefix("Value error, "),
            }
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise InvalidInput(f"{errors[0]['where']}: {errors[0]['what']}", errors=errors[:50]) from error


def _invalid(where: str, what: str) -> InvalidInput:
    return InvalidInput(f"{where}: {what}", errors=[{"where": where, "what": what}])


def _record(session: AsyncSession, principal: Principal, kind: str, row: ConnectorRow) -> None:
    verb = kind.partition(".")[2]
    audit.record(
        session,
        principal,
        kind=kind,
        subject=f"connector/{row.name}",
        summary=f"{principal.display_name or principal.subject} {verb} the connector {row.name} ({row.kind})"
        + ("" if row.enabled else "; it is switched off"),
        data={"name": row.name, "kind": row.kind, "version": row.version, "config": row.config, "enabled": row.enabled},
    )
