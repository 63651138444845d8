"""Policy versions: checked when written, never changed, pinned by what was decided under them."""

from __future__ import annotations

from functools import lru_cache
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.errors import Conflict, NotFound
from models.domain.policy import Policy
from models.domain.principal import Principal, PrincipalKind
from models.repositories import paging
from models.repositories import policies as rows
from models.rules import policy as rules
from models.services import audit
from models.services.ids import new_id
from models.tables.tenancy import PolicyVersionRow


def validate(source: str) -> Policy:
    """Parse and check a policy's text; nothing is written.

    Raises:
        InvalidPolicy: `extra["errors"]` lists {where, line, what}.
    """
    return rules.load(source)


async def write_version(
    session: AsyncSession, principal: Principal, source: str, *, base_version: int | None = None
) -> PolicyVersionRow:
    """Write the tenant's next version; a text that means the same as the current one answers that one.

    `base_version` is the version that the writer saw; None does not ask.

    Raises:
        InvalidPolicy: The text is no policy.
        Conflict: Somebody wrote a version after `base_version`.
    """
    policy = validate(source)
    tenant_id = principal.tenant_id
    await rows.lock_numbering(session, tenant_id)
    newest = await rows.current(session, tenant_id)
    number = newest.version if newest else 0
    if base_version is not None and base_version != number:
        raise Conflict(f"the current version is {number}, not {base_version}", current=number)
    digest = rules.digest(policy)
    if newest is not None and newest.digest == digest and newest.source == source:
        return newest
    author = principal.id if principal.kind is PrincipalKind.USER else None
    row = PolicyVersionRow(
        tenant_id=tenant_id, id=new_id(), version=number + 1, digest=digest, source=source, created_by=author
    )
    session.add(row)
    await session.flush()
    audit.record(
        session,
        principal,
        kind="policy.version_written",
        subject=f"policy_version/{row.id}",
        summary=f"Policy version {row.version} ({policy.policy.name} {policy.policy.version}) is in force",
        data={"version": row.version, "digest": digest},
    )
    return row


async def current(session: AsyncSession, tenant_id: UUID) -> PolicyVersionRow:
    """The version in force for new work of a tenant.

    Raises:
        NotFound: The tenant has none, so nothing can be assessed.
    """
    row = await rows.current(session, tenant_id)
    if row is None:
        raise NotFound("this company has no policy; a tenant admin writes the first version")
    return row


async def read(session: AsyncSession, principal: Principal, version: int | None = None) -> PolicyVersionRow:
    """One version of the principal's own tenant by its number, or the current one.

    Raises:
        NotFound: There is none.
    """
    if version is None:
        return await current(session, principal.tenant_id)
    row = await rows.by_number(session, principal.tenant_id, version)
    if row is None:
        raise NotFound(f"there is no policy version {version}")
    return row


async def list_page(
    session: AsyncSession, principal: Principal, cursor: str | None = None, limit: int = 50
) -> tuple[list[PolicyVersionRow], str | None]:
    """Versions of the principal's own tenant, newest first, and the next cursor."""
    size = paging.page_size(limit)
    found = await rows.page(session, principal.tenant_id, paging.after(cursor), size + 1)
    return paging.cut(found, size)


async def pinned(session: AsyncSession, tenant_id: UUID, policy_version_id: UUID) -> Policy:
    """The policy that something was decided under.

    Raises:
        NotFound: No such version (a foreign key makes that impossible for a pinned one).
    """
    row = await rows.get(session, tenant_id, policy_version_id)
    if row is None:
        raise NotFound(f"there is no policy version {policy_version_id}")
    return _loaded(row.source)


@lru_cache(maxsize=64)
def _loaded(source: str) -> Policy:
    """Checking every condition takes milliseconds; a version never changes, so once is enough."""
    return rules.load(source)
