"""The secret store: written by a company's admins, read by its connectors alone, shown to nobody again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.errors import Conflict, InvalidInput, NotFound
from models.domain.principal import Principal
from models.repositories import connectors as rows
from models.repositories import tenants as tenant_rows
from models.services import audit
from models.storage.vault import Vault
from models.tables.actions import SecretRow

SHORTEST, LONGEST = 8, 8192
"""What is shorter could not be hidden in what the other side answers: it stands in ordinary text too often."""
MOST = 200


@dataclass(frozen=True)
class SecretView:
    """A secret as it is listed: everything but its value."""

    name: str
    created_by: str
    created_at: datetime
    updated_at: datetime
    used_by: tuple[str, ...]


async def put(session: AsyncSession, principal: Principal, vault: Vault, name: str, value: str) -> SecretView:
    """Keep a value under a name; a name that is known takes the new value. Audited by its name only.

    Raises:
        InvalidInput: The value cannot be one, or the company has too many.
    """
    _check(value)
    tenant_id, now = principal.tenant_id, await tenant_rows.database_now(session)
    known = await rows.secret(session, tenant_id, name, lock=True)
    if known is None and len(await rows.secrets_of(session, tenant_id)) >= MOST:
        raise InvalidInput(
            f"a company keeps at most {MOST} secrets", errors=[{"where": "name", "what": "one too many"}]
        )
    row = known or SecretRow(
        tenant_id=tenant_id, name=name, ciphertext="", created_by=principal.display_name or principal.subject
    )
    row.ciphertext, row.updated_at = vault.seal(tenant_id, name, value), now
    session.add(row)
    await session.flush()
    await session.refresh(row)
    _record(session, principal, "secret.changed" if known else "secret.created", name)
    return await _view(session, row)


async def list_names(session: AsyncSession, principal: Principal) -> list[SecretView]:
    """What the principal's company keeps: names, never values."""
    return [await _view(session, row) for row in await rows.secrets_of(session, principal.tenant_id)]


async def delete(session: AsyncSession, principal: Principal, name: str) -> None:
    """Forget a secret.

    Raises:
        NotFound: There is none of this name.
        Conflict: A connector shows it to the other side.
    """
    row = await rows.secret(session, principal.tenant_id, name, lock=True)
    if row is None:
        raise NotFound(f"there is no secret {name}")
    used = (await _view(session, row)).used_by
    if used:
        raise Conflict(f"the secret is used by the connectors {', '.join(used)}", used_by=list(used))
    await rows.delete_secret(session, principal.tenant_id, name)
    _record(session, principal, "secret.deleted", name)


def opened(vault: Vault, sealed: Sequence[SecretRow]) -> dict[str, str]:
    """The values by name, for a connector that is about to send; they are kept nowhere."""
    return {row.name: vault.open(row.tenant_id, row.name, row.ciphertext) for row in sealed}


def names_in(config: Mapping[str, Any]) -> set[str]:
    """The secrets that a connector's configuration names."""
    credential = config.get("credential")
    return {str(credential["secret"])} if credential else set()


async def _view(session: AsyncSession, row: SecretRow) -> SecretView:
    connectors = await rows.all_of(session, row.tenant_id)
    used_by = tuple(one.name for one in connectors if row.name in names_in(one.config))
    return SecretView(row.name, row.created_by, row.created_at, row.updated_at, used_by)


def _check(value: str) -> None:
    faults = ""
    if not SHORTEST <= len(value) <= LONGEST:
        faults = f"takes {SHORTEST} to {LONGEST} characters"
    elif not all(32 <= ord(letter) < 127 for letter in value):
        # It becomes a header's value.
        faults = "is printable ASCII"
    if faults:
        raise InvalidInput(f"value: {faults}", errors=[{"where": "body.value", "what": faults}])


def _record(session: AsyncSession, principal: Principal, kind: str, name: str) -> None:
    verb = kind.partition(".")[2]
    audit.record(
        session,
        principal,
        kind=kind,
        subject=f"secret/{name}",
        summary=f"{principal.display_name or principal.subject} {verb} the secret {name}",
        data={"name": name},
    )
