"""Assistants: what may be asked for work, with which image, limits and tools."""

from __future__ import annotations

import re
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.errors import Conflict, Forbidden, InvalidInput, NotFound
from models.domain.money import Amount
from models.domain.policy import DefaultLimits, ModelPattern
from models.domain.principal import Principal, PrincipalKind, Role
from models.domain.work_item import MAX_TOOLS, Slug, ToolName
from models.repositories import assistants as rows
from models.repositories import paging
from models.repositories import principals as principal_rows
from models.repositories import tenants as tenant_rows
from models.services import audit
from models.services.ids import new_id
from models.services.plain_json import no_nul
from models.tables.tenancy import AssistantRow
from sandbox.spec import Limits

_RESERVED = "AWGP_"
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")

Text = Annotated[str, AfterValidator(no_nul)]
Words = Annotated[str, StringConstraints(max_length=4096), AfterValidator(no_nul)]
LimitName = Annotated[str, StringConstraints(pattern="^(" + "|".join(Limits.model_fields) + ")$")]


def _environment(env: dict[str, str]) -> dict[str, str]:
    for name in env:
        if not _ENV_NAME.fullmatch(name):
            raise ValueError(f"{name[:60]!r} is no name of an environment variable")
        if name.startswith(_RESERVED):
            raise ValueError(f"names that start with {_RESERVED} are ours")
    return env


class LlmAsked(BaseModel):
    """What each of an assistant's work items may spend on models; a part left out is the policy's.

    Attributes:
        budget_nano_usd: For all calls of one work item together, in integer nano-dollars.
        models: Patterns of which the model must fit one; empty: all that the policy allows.
        rpm: Calls a minute.
        tpm: Tokens a minute.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget_nano_usd: Annotated[Amount, Field(gt=0)]
    models: Annotated[tuple[ModelPattern, ...], Field(max_length=64)] = ()
    rpm: Annotated[int, Field(ge=1, le=10**6)] | None = None
    tpm: Annotated[int, Field(ge=1, le=10**12)] | None = None


class AssistantBody(BaseModel):
    """What its owner says of an assistant; a limit left out is the policy's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[Text, StringConstraints(min_length=1, max_length=120, strip_whitespace=True)]
    description: Annotated[Text, StringConstraints(max_length=2000)] = ""
    image: Annotated[Text, StringConstraints(min_length=1, max_length=512)]
    command: Annotated[tuple[Words, ...], Field(max_length=64)] | None = None
    """Replaces the image's CMD; None keeps it."""
    env: Annotated[dict[Words, Words], Field(max_length=64), AfterValidator(_environment)] = {}
    restartable: bool = False
    limits: dict[LimitName, Annotated[int, Field(strict=True)]] = {}
    tools: Annotated[frozenset[ToolName], Field(max_length=MAX_TOOLS)] = frozenset()
    llm: LlmAsked | None = None
    """What it may spend on models; None: it calls none."""
    connectors: Annotated[frozenset[Slug], Field(max_length=64)] = frozenset()
    """Names of the company's connectors by which its effects may be performed."""
    enabled: bool = True


class NewAssistant(AssistantBody):
    """An assistant to be made; the slug never changes."""

    slug: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    owner_id: UUID | None = None
    """None: who makes it, if that is a user."""


async def create(session: AsyncSession, principal: Principal, new: NewAssistant) -> AssistantRow:
    """Make an assistant of the principal's own company.

    Raises:
        Conflict: The slug is taken.
        InvalidInput: A limit or the owner is not acceptable.
    """
    _check_limits(new.limits)
    owner_id = new.owner_id or (principal.id if principal.kind is PrincipalKind.USER else None)
    if new.owner_id is not None and await principal_rows.get(session, principal.tenant_id, new.owner_id) is None:
        raise _invalid("owner_id", "there is no such user in this company")
    if await rows.find(session, principal.tenant_id, new.slug) is not None:
        raise Conflict(f"there is an assistant {new.slug} already", slug=new.slug)
    row = AssistantRow(tenant_id=principal.tenant_id, id=new_id(), slug=new.slug, owner_id=owner_id, **_columns(new))
    session.add(row)
    try:
        await session.flush()
    except IntegrityError as error:  # two at once: the unique key has one winner
        raise Conflict(f"there is an assistant {new.slug} already", slug=new.slug) from error
    await session.refresh(row)
    _record(session, principal, row, "assistant.created", f"The assistant {row.slug} was made")
    return row


async def read(session: AsyncSession, principal: Principal, name: str) -> AssistantRow:
    """One assistant by id, or by slug within the principal's own company.

    Raises:
        NotFound: There is none, or it is somebody else's.
    """
    row = await rows.find(session, principal.tenant_id, name)
    if row is None:
        try:
            row = await rows.get(session, UUID(name))
        except ValueError:
            row = None
    if row is None:
        raise NotFound(f"there is no assistant {name[:64]!r}")
    return row


async def list_page(
    session: AsyncSession, principal: Principal, cursor: str | None = None, limit: int = 50
) -> tuple[list[AssistantRow], str | None]:
    """Assistants that the principal's company sees, newest first, and the next cursor."""
    size = paging.page_size(limit)
    return paging.cut(await rows.page(session, paging.after(cursor), size + 1), size)


async def update(
    session: AsyncSession, principal: Principal, assistant_id: UUID, version: int, body: AssistantBody
) -> AssistantRow:
    """Replace what is said of an assistant, if nobody else has since `version`. Work that exists keeps its spec.

    Raises:
        NotFound: Not an assistant of the principal's own company.
        Forbidden: It takes its owner or a tenant admin.
        Conflict: Somebody changed it since `version`.
    """
    row = await rows.lock(session, principal.tenant_id, assistant_id)
    if row is None:
        raise NotFound(f"there is no assistant {assistant_id}")
    if row.owner_id != principal.id and Role.TENANT_ADMIN not in principal.roles:
        raise Forbidden("an assistant is changed by its owner or a tenant admin")
    if row.version != version:
        raise Conflict(f"the assistant is at version {row.version}, not {version}; read it again", current=row.version)
    _check_limits(body.limits)
    columns = _columns(body)
    changed = sorted(name for name, value in columns.items() if getattr(row, name) != value)
    if not changed:
        return row
    for name in changed:
        setattr(row, name, columns[name])
    row.version += 1
    row.updated_at = await tenant_rows.database_now(session)
    session.add(row)
    await session.flush()
    data = {"version": row.version, "changed": changed, "image": row.image}
    _record(
        session,
        principal,
        row,
        "assistant.updated",
        f"The assistant {row.slug} was changed: {', '.join(changed)}",
        data,
    )
    return row


def _columns(body: AssistantBody) -> dict[str, Any]:
    return {
        "name": body.name,
        "description": body.description,
        "image": body.image,
        "command": list(body.command) if body.command is not None else None,
        "env": dict(body.env),
        "restartable": body.restartable,
        "limits": dict(body.limits),
        "tools": sorted(body.tools),
        "llm": body.llm.model_dump(mode="json", exclude_none=True) if body.llm is not None else {},
        "connectors": sorted(body.connectors),
        "enabled": body.enabled,
    }


def _check_limits(limits: dict[str, int]) -> None:
    try:
        Limits.model_validate({**DefaultLimits().model_dump(), **limits})
    except ValidationError as error:
        fault = error.errors()[0]
        raise _invalid(f"limits.{'.'.join(str(part) for part in fault['loc'])}", fault["msg"]) from error


def _invalid(where: str, what: str) -> InvalidInput:
    return InvalidInput(f"{where}: {what}", errors=[{"where": where, "what": what}])


def _record(
    session: AsyncSession,
    principal: Principal,
    row: AssistantRow,
    kind: str,
    summary: str,
    data: dict[str, Any] | None = None,
) -> None:
    audit.record(session, principal, kind=kind, subject=f"assistant/{row.id}", summary=summary, data=data)
