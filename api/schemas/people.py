"""Companies and people, as the API speaks of them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self
from uuid import UUID

from api.schemas.fields import Answer
from models.domain.principal import Principal, PrincipalKind, Role
from models.tables.tenancy import PrincipalRow, TenantRow


class TenantAnswer(Answer):
    """A company."""

    id: UUID
    slug: str
    name: str
    kind: Literal["holding", "subsidiary"]
    parent_id: UUID | None
    created_at: datetime

    @classmethod
    def of(cls, row: TenantRow) -> Self:
        """The answer for a row."""
        return cls.model_validate(row.model_dump() | {"id": row.tenant_id, "parent_id": row.parent_tenant_id})


class TenantList(Answer):
    """The caller's company, and those that it holds."""

    items: list[TenantAnswer]


class UserAnswer(Answer):
    """Somebody who was seen with a valid token, or seeded."""

    id: UUID
    tenant_id: UUID
    kind: PrincipalKind
    username: str
    display_name: str
    email: str | None
    roles: list[str]
    created_at: datetime
    last_seen_at: datetime | None

    @classmethod
    def of(cls, row: PrincipalRow) -> Self:
        """The answer for a row."""
        return cls.model_validate(row, from_attributes=True)


class UserPage(Answer):
    """Users, newest first."""

    items: list[UserAnswer]
    next_cursor: str | None


class Me(Answer):
    """Who the caller is, as this token says."""

    id: UUID
    tenant_id: UUID
    tenant: str
    tenant_kind: Literal["holding", "subsidiary"]
    kind: PrincipalKind
    username: str
    display_name: str
    email: str | None
    roles: list[Role]
    acr: str | None

    @classmethod
    def of(cls, principal: Principal) -> Self:
        """The answer for a principal."""
        given = principal.model_dump(
            include={"id", "tenant_id", "tenant_kind", "kind", "username", "display_name", "email", "acr"}
        )
        return cls.model_validate(given | {"tenant": principal.tenant_slug, "roles": sorted(principal.roles)})
