"""`python -m models.services.seed`: who and what is there after the first set-up; safe to repeat.

What is there already is left as it stands, so nothing that people have changed since is undone. It runs as the
schema's owner, who alone makes tenants, and binds each tenant in turn as everybody must.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Self, cast
from uuid import UUID

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.approval import TenantKind
from models.domain.budget import BudgetScope, BudgetWindow
from models.domain.money import Amount, parse_usd
from models.domain.principal import Role, service_principal
from models.domain.work_item import Slug, ToolName
from models.repositories import assistants as assistant_rows
from models.repositories import policies as policy_rows
from models.repositories import principals as principal_rows
from models.repositories import seeding as rows
from models.rules.policy import default_text
from models.services import assistants, audit, policies
from models.services.ids import new_id
from models.settings import Settings
from models.storage.db import Database
from models.tables.money import BudgetRow
from models.tables.tenancy import AssistantRow, PrincipalRow, TenantRow, WebhookRow


def _usd(value: object) -> object:
    return parse_usd(value) if isinstance(value, str) else value


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SeedTenant(_Part):
    """A company; a subsidiary names its holding."""

    slug: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    name: str
    kind: TenantKind
    parent: str | None = None


class SeedPrincipal(_Part):
    """A user; `user` is what the issuer calls them."""

    tenant: str
    user: str
    name: str
    email: str | None = None
    roles: tuple[Role, ...] = ()


class SeedAssistant(_Part):
    """An assistant; `owner` is a user of the same tenant."""

    tenant: str
    slug: str
    name: str
    image: str
    description: str = ""
    owner: str | None = None
    command: tuple[str, ...] | None = None
    env: dict[str, str] = {}
    restartable: bool = False
    limits: dict[str, int] = {}
    tools: frozenset[ToolName] = frozenset()
    llm: assistants.LlmAsked | None = None
    connectors: frozenset[Slug] = frozenset()


class SeedBudget(_Part):
    """A budget of everything, of a tenant, or of a tenant's assistant."""

    everything: bool = False
    tenant: str | None = None
    assistant: str | None = None
    window: BudgetWindow
    limit: Annotated[Amount, BeforeValidator(_usd)]

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if self.everything == (self.tenant is not None) or (self.assistant and not self.tenant):
            raise ValueError("a budget names everything, or a tenant, or a tenant and its assistant")
        return self


class SeedWebhook(_Part):
    """Where a tenant's final states are told; an empty list of events means all."""

    tenant: str
    url: str
    secret: str
    events: tuple[Slug, ...] = ()


class Seed(_Part):
    """The whole file."""

    tenants: tuple[SeedTenant, ...]
    principals: tuple[SeedPrincipal, ...] = ()
    assistants: tuple[SeedAssistant, ...] = ()
    budgets: tuple[SeedBudget, ...] = ()
    webhooks: tuple[SeedWebhook, ...] = ()


def load(path: Path) -> Seed:
    """Read and check a seed file.

    Raises:
        SystemExit: It is not there or has another shape; the message says where.
    """
    try:
        return Seed.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise SystemExit(f"the seed file {path} cannot be used: {error}") from error


async def plant(db: Database, seed: Seed, issuer: str) -> dict[str, UUID]:
    """Add what is new; answers the tenants' ids by slug. `db` is the owner's; `issuer` names the users' issuer."""
    tenants: dict[str, UUID] = {}
    for tenant in sorted(seed.tenants, key=lambda one: one.kind is not TenantKind.HOLDING):
        tenants[tenant.slug] = await _tenant(db, tenant, tenants)
    for slug, tenant_id in tenants.items():
        async with db.tenant_session(tenant_id) as session:
            await _policy(session, tenant_id)
            for person in (one for one in seed.principals if one.tenant == slug):
                await _principal(session, tenant_id, person, issuer)
            for assistant in (one for one in seed.assistants if one.tenant == slug):
                await _assistant(session, tenant_id, assistant, issuer)
            for budget in (one for one in seed.budgets if one.tenant == slug):
                await _budget(session, tenant_id, budget)
            for hook in (one for one in seed.webhooks if one.tenant == slug):
                await _webhook(session, tenant_id, hook)
    holding = next((tenants[one.slug] for one in seed.tenants if one.kind is TenantKind.HOLDING), None)
    if holding is not None:
        async with db.tenant_session(holding) as session:
            for budget in (one for one in seed.budgets if one.everything):
                await _everything(session, holding, budget)
    return tenants


async def _tenant(db: Database, tenant: SeedTenant, known: dict[str, UUID]) -> UUID:
    found = cast("UUID | None", await db.call("select find_tenant(:slug)", slug=tenant.slug))
    if found is not None:
        return found
    tenant_id = new_id()
    async with db.tenant_session(tenant_id) as session:
        session.add(
            TenantRow(
                tenant_id=tenant_id,
                slug=tenant.slug,
                name=tenant.name,
                kind=tenant.kind.value,
                parent_tenant_id=known[tenant.parent] if tenant.parent else None,
            )
        )
        await session.flush()
        _record(session, tenant_id, "tenant.created", f"tenant/{tenant_id}", f"The company {tenant.name} was set up")
    return tenant_id


async def _policy(session: AsyncSession, tenant_id: UUID) -> None:
    if await policy_rows.current(session, tenant_id) is None:
        await policies.write_version(session, service_principal("seed", tenant_id), default_text())


async def _principal(session: AsyncSession, tenant_id: UUID, person: SeedPrincipal, issuer: str) -> None:
    row = PrincipalRow(
        tenant_id=tenant_id,
        id=new_id(),
        kind="user",
        issuer=issuer,
        subject=person.user,
        username=person.user,
        display_name=person.name,
        email=person.email,
        roles=sorted(role.value for role in person.roles),
    )
    if await principal_rows.insert_if_new(session, row):
        _record(session, tenant_id, "principal.created", f"principal/{row.id}", f"{person.name} was added", row.roles)


async def _assistant(session: AsyncSession, tenant_id: UUID, one: SeedAssistant, issuer: str) -> AssistantRow:
    known = await assistant_rows.find(session, tenant_id, one.slug)
    if known is not None:
        return known
    owner = await principal_rows.by_subject(session, tenant_id, issuer, one.owner) if one.owner else None
    fields = one.model_dump(exclude={"tenant", "owner"})
    new = assistants.NewAssistant.model_validate({**fields, "owner_id": owner.id if owner else None})
    return await assistants.create(session, service_principal("seed", tenant_id), new)


async def _budget(session: AsyncSession, tenant_id: UUID, budget: SeedBudget) -> None:
    assistant_id: UUID | None = None
    if budget.assistant is not None:
        assistant = await assistant_rows.find(session, tenant_id, budget.assistant)
        if assistant is None:
            raise SystemExit(f"a budget names the assistant {budget.assistant!r}, which {budget.tenant} does not have")
        assistant_id = assistant.id
    scope = BudgetScope.ASSISTANT if assistant_id else BudgetScope.TENANT
    if await rows.has_budget(session, tenant_id, assistant_id, budget.window.value):
        return
    row = BudgetRow(
        tenant_id=tenant_id,
        id=new_id(),
        scope=scope.value,
        assistant_id=assistant_id,
        window_kind=budget.window.value,
        limit_nano=budget.limit,
        updated_by="seed",
    )
    session.add(row)
    await session.flush()
    _record(
        session, tenant_id, "budget.set", f"budget/{row.id}", f"A budget of the {scope.value} a {budget.window.value}"
    )


async def _everything(session: AsyncSession, holding: UUID, budget: SeedBudget) -> None:
    if await rows.has_everything_budget(session, budget.window.value):
        return
    await rows.set_everything_budget(session, budget.window.value, budget.limit, "seed")
    subject = f"everything_budget/{budget.window.value}"
    _record(session, holding, "budget.set", subject, f"The budget of everything a {budget.window.value}")


async def _webhook(session: AsyncSession, tenant_id: UUID, hook: SeedWebhook) -> None:
    if await rows.has_webhook(session, tenant_id, hook.url):
        return
    row = WebhookRow(tenant_id=tenant_id, id=new_id(), url=hook.url, secret=hook.secret, events=list(hook.events))
    session.add(row)
    await session.flush()
    _record(session, tenant_id, "webhook.created", f"webhook/{row.id}", f"A webhook to {hook.url}")


def _record(
    session: AsyncSession, tenant_id: UUID, kind: str, subject: str, summary: str, roles: list[str] | None = None
) -> None:
    data = {"roles": roles} if roles is not None else None
    audit.record(session, service_principal("seed", tenant_id), kind=kind, subject=subject, summary=summary, data=data)


async def _run(settings: Settings) -> None:
    seed = load(settings.seed_file)
    db = Database(settings.secret("database_owner_url"), pool_size=2)
    try:
        tenants = await plant(db, seed, settings.oidc_issuer)
    finally:
        await db.close()
    sys.stdout.write(f"seeded: {', '.join(tenants)}\n")


def main() -> None:
    """Seed the database that the settings name."""
    asyncio.run(_run(Settings()))


if __name__ == "__main__":
    main()
