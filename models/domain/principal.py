"""Who acts: a user, an assistant or a service, with tenant and roles."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from models.domain.approval import TenantKind


class Role(StrEnum):
    """What a principal may do; the table of routes (`api/access.py`) says which route asks for which."""

    REQUESTER = "requester"
    ASSISTANT_OWNER = "assistant_owner"
    APPROVER = "approver"
    AUDITOR = "auditor"
    TENANT_ADMIN = "tenant_admin"
    HOLDING_APPROVER = "holding_approver"
    HOLDING_ADMIN = "holding_admin"
    RUNTIME = "runtime"
    AUTOMATION = "automation"
    BREAK_GLASS = "break_glass"


class PrincipalKind(StrEnum):
    """What kind of actor it is; only users decide."""

    USER = "user"
    ASSISTANT = "assistant"
    SERVICE = "service"


class Principal(BaseModel):
    """An actor bound to one tenant.

    Attributes:
        tenant_id: The tenant whose rows a session for this principal may see.
        id: The principal's row; for services a fixed id of the process.
        subject: What the issuer calls it (`sub`).
        acr: Authentication class of this session's token, if it said one.
    """

    model_config = ConfigDict(frozen=True)

    tenant_id: UUID
    id: UUID
    kind: PrincipalKind
    tenant_slug: str = ""
    tenant_kind: TenantKind = TenantKind.SUBSIDIARY
    issuer: str = ""
    subject: str = ""
    username: str = ""
    display_name: str = ""
    email: str | None = None
    roles: frozenset[Role] = frozenset()
    acr: str | None = None

    @property
    def is_holding(self) -> bool:
        """Whether the principal belongs to the holding."""
        return self.tenant_kind is TenantKind.HOLDING


def service_principal(name: str, tenant_id: UUID) -> Principal:
    """The principal under which a process of ours acts inside one tenant."""
    return Principal(
        tenant_id=tenant_id,
        id=UUID(int=0),
        kind=PrincipalKind.SERVICE,
        subject=f"service/{name}",
        username=name,
        display_name=name,
    )
