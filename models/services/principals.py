"""Who is who: a principal first seen with a valid token is made a user; its roles follow the token."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.approval import TenantKind
from models.domain.errors import NotFound
from models.domain.principal import Principal, PrincipalKind, Role
from models.repositories import paging
from models.repositories import principals as rows
from models.repositories import tenants as tenant_rows
from models.services import audit
from models.services.ids import new_id
from models.tables.tenancy import PrincipalRow, TenantRow

SEEN_EVERY = timedelta(minutes=1)
"""`last_seen_at` is written at most this often, so that reading does not mean writing."""


async def seen(
    session: AsyncSession,
    tenant: TenantRow,
    *,
    issuer: str,
    subject: str,
    username: str,
    display_name: str,
    email: str | None,
    roles: Iterable[Role],
    acr: str | None = None,
    kind: PrincipalKind = PrincipalKind.USER,
) -> Principal:
    """The principal that a verified token speaks of, made when it is first seen; its row follows the token.

    Roles, names and e-mail address are the issuer's to say; a change of roles is audited. The session is the
    tenant's own. Twenty calls at once make one row.
    """
    wanted = sorted({role.value for role in roles})
    row = await rows.by_subject(session, tenant.tenant_id, issuer, subject)
    if row is None:
        row = PrincipalRow(
            tenant_id=tenant.tenant_id,
            id=new_id(),
            kind=kind.value,
            issuer=issuer,
            subject=subject,
            username=username,
            display_name=display_name or username,
            email=email,
            roles=wanted,
            last_seen_at=await tenant_rows.database_now(session),
        )
        made = await rows.insert_if_new(session, row)
        stored = await rows.by_subject(session, tenant.tenant_id, issuer, subject)
        assert stored is not None, "it was inserted, by this transaction or by one that has committed"
        row = stored
        principal = principal_of(row, tenant, acr)
        if made:
            _record(session, principal, "principal.first_seen", f"{row.display_name} was seen for the first time")
            return principal
    await _follow(session, tenant, row, username, display_name or username, email, wanted)
    return principal_of(row, tenant, acr)


def principal_of(row: PrincipalRow, tenant: TenantRow, acr: str | None = None) -> Principal:
    """The principal of a row, with the authentication class of this session's token."""
    return Principal(
        tenant_id=row.tenant_id,
        id=row.id,
        kind=PrincipalKind(row.kind),
        tenant_slug=tenant.slug,
        tenant_kind=TenantKind(tenant.kind),
        issuer=row.issuer,
        subject=row.subject,
        username=row.username,
        display_name=row.display_name,
        email=row.email,
        roles=frozenset(Role(role) for role in row.roles),
        acr=acr,
    )


async def read(session: AsyncSession, principal: Principal, principal_id: UUID) -> PrincipalRow:
    """One principal of the caller's own company.

    Raises:
        NotFound: There is none, or it is somebody else's.
    """
    row = await rows.get(session, principal.tenant_id, principal_id)
    if row is None:
        raise NotFound(f"there is no user {principal_id}")
    return row


async def list_page(
    session: AsyncSession, principal: Principal, cursor: str | None = None, limit: int = 50
) -> tuple[list[PrincipalRow], str | None]:
    """Principals that the caller's company sees, newest first, and the next cursor."""
    size = paging.page_size(limit)
    return paging.cut(await rows.page(session, paging.after(cursor), size + 1), size)


async def _follow(
    session: AsyncSession,
    tenant: TenantRow,
    row: PrincipalRow,
    username: str,
    display_name: str,
    email: str | None,
    roles: list[str],
) -> None:
    before = sorted(row.roles)
    changed = (row.username, row.display_name, row.email, before) != (username, display_name, email, roles)
    now = await tenant_rows.database_now(session)
    if not changed and row.last_seen_at is not None and now - row.last_seen_at < SEEN_EVERY:
        return
    row.username, row.display_name, row.email, row.roles = username, display_name, email, roles
    row.last_seen_at = now
    session.add(row)
    await session.flush()
    if before != roles:
        summary = f"{display_name} now has the roles {', '.join(roles) or 'none'}"
        data = {"before": before, "after": roles}
        _record(session, principal_of(row, tenant), "principal.roles_changed", summary, data)


def _record(
    session: AsyncSession, principal: Principal, kind: str, summary: str, data: dict[str, list[str]] | None = None
) -> None:
    audit.record(session, principal, kind=kind, subject=f"principal/{principal.id}", summary=summary, data=data)
