"""Asking for work: what a request holds, what it would be (dry run), and its creation under an idempotency key."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.errors import Conflict, IdempotencyMismatch, InvalidInput
from models.domain.money import ZERO, Amount, NanoUsd, format_usd
from models.domain.policy import Policy
from models.domain.principal import Principal
from models.domain.risk import RiskAssessment
from models.domain.views import DryRun
from models.domain.work_item import (
    MAX_TOOLS,
    ActionKind,
    DataClass,
    ExternalEffect,
    Reversibility,
    ToolName,
    WorkItemFacts,
)
from models.repositories import assistants as assistant_rows
from models.repositories import work_items as rows
from models.rules import approval as approval_rules
from models.rules import cost, risk
from models.services import audit, policies
from models.services.assistant_record import record_of
from models.services.assistants import LlmAsked
from models.services.ids import new_id
from models.services.outbox import OutboxKind, enqueue
from models.services.plain_json import no_nul, plain_json
from models.services.who_decides import who_decides
from models.tables.tenancy import AssistantRow, PolicyVersionRow
from models.tables.work import WorkItemFileRow, WorkItemRow
from sandbox.spec import InputFile, Limits, LlmGrant, RunSpec, spec_digest

MAX_INPUTS = 64
MAX_PARAMETERS_BYTES = 16 * 1024
_NIL = UUID(int=0)


class LimitsAsked(BaseModel):
    """Limits that a request lowers; None takes the assistant's (and the policy's where it has none)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_bytes: int | None = None
    cpu_nanos: int | None = None
    pids: int | None = None
    nproc: int | None = None
    disk_bytes: int | None = None
    tmp_bytes: int | None = None
    output_bytes: int | None = None
    artifact_bytes: int | None = None
    wall_seconds: int | None = None
    nofile: int | None = None
    llm_budget_nano_usd: int | None = None
    """For model calls; only where the assistant has a grant for them."""


class NewWorkItem(BaseModel):
    """What somebody asks for.

    Attributes:
        assistant: Slug or id of an assistant of the requester's own tenant.
        amount_nano_usd: The sum that the work itself moves or prepares to move; not what running it costs.
        tools: Tools asked for, among those that the assistant has.
        parameters: Small JSON that the agent finds in `AWGP_PARAMETERS`.
        inputs: Files by digest; their bytes are in the blob store already.
        limits: Only ever lower than the assistant's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    assistant: Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(no_nul)]
    title: Annotated[
        str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), AfterValidator(no_nul)
    ]
    kind: ActionKind
    data_class: DataClass
    reversibility: Reversibility = Reversibility.IRREVERSIBLE
    external_effect: ExternalEffect = ExternalEffect.EXTERNAL
    amount_nano_usd: Amount = ZERO
    tools: Annotated[frozenset[ToolName], Field(max_length=MAX_TOOLS)] = frozenset()
    parameters: Annotated[dict[str, Any], AfterValidator(plain_json)] = {}
    inputs: Annotated[tuple[InputFile, ...], Field(max_length=MAX_INPUTS)] = ()
    limits: LimitsAsked = LimitsAsked()


@dataclass(frozen=True)
class _Prepared:
    """All that follows from a request, a tenant's assistant and its current policy."""

    assistant: AssistantRow
    version: PolicyVersionRow
    policy: Policy
    facts: WorkItemFacts
    spec: RunSpec
    worst_case: NanoUsd


async def dry_run(session: AsyncSession, principal: Principal, new: NewWorkItem) -> DryRun:
    """Risk, worst-case cost and who would decide, if `new` were created now; nothing is written.

    Raises:
        InvalidInput: Something in it is not acceptable; `errors` says where.
        Conflict: The assistant is switched off.
    """
    prepared = await _prepare(session, principal, new, work_item_id=_NIL, run_id=_NIL)
    assessment: RiskAssessment = risk.assess(prepared.policy, prepared.facts)
    requirement = approval_rules.requirement_for(prepared.policy, assessment.level)
    return DryRun(
        score=assessment.score,
        level=assessment.level,
        factors=assessment.factors,
        needs_approval=requirement is not None,
        tier=requirement.tier if requirement else None,
        quorum=requirement.quorum if requirement else 0,
        who=await who_decides(session, principal.tenant_id, requirement)
        if requirement
        else "nobody: it goes on by itself",
        worst_case_nano=prepared.worst_case,
        worst_case=format_usd(prepared.worst_case),
        policy_version=prepared.version.version,
    )


async def create_work_item(
    session: AsyncSession, principal: Principal, new: NewWorkItem, idempotency_key: str
) -> tuple[WorkItemRow, bool]:
    """Create a work item, or answer the one that this requester made under the same key.

    Returns:
        The item, and whether this call created it.

    Raises:
        IdempotencyMismatch: The key was used for another request.
        InvalidInput: Something in the request is not acceptable; `errors` says where.
        Conflict: The assistant is switched off.
        NotFound: The tenant has no policy.
    """
    key = _checked_key(idempotency_key)
    digest = request_digest(new)
    known = await rows.by_key(session, principal.tenant_id, principal.id, key)
    if known is not None:
        return _same(known, digest), False
    item_id, run_id = new_id(), new_id()
    prepared = await _prepare(session, principal, new, work_item_id=item_id, run_id=run_id)
    row = _row(principal, new, prepared, key=key, digest=digest)
    # INVARIANT: a race for one key has one winner; the loser waits for its commit here and answers its row.
    if not await rows.insert_if_new(session, row):
        winner = await rows.by_key(session, principal.tenant_id, principal.id, key)
        if winner is None:
            raise Conflict("another request with this idempotency key is just being undone; try again")
        return _same(winner, digest), False
    for file in new.inputs:
        session.add(
            WorkItemFileRow(
                tenant_id=row.tenant_id,
                work_item_id=row.id,
                direction="in",
                path=file.path,
                sha256=file.sha256,
                size=file.size,
            )
        )
    _announce(session, principal, row, prepared)
    await session.flush()
    stored = await rows.get(session, item_id)
    assert stored is not None, "an item just inserted is seen by its own transaction"
    return stored, True


def request_digest(new: NewWorkItem) -> str:
    """Digest of what was asked, the same for the same request."""
    body = new.model_dump(mode="json") | {"tools": sorted(new.tools)}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


async def _prepare(
    session: AsyncSession, principal: Principal, new: NewWorkItem, *, work_item_id: UUID, run_id: UUID
) -> _Prepared:
    tenant_id = principal.tenant_id
    assistant = await assistant_rows.find(session, tenant_id, new.assistant)
    if assistant is None:
        raise _invalid("assistant", f"there is no assistant {new.assistant!r} in this company")
    if not assistant.enabled:
        raise Conflict(f"the assistant {assistant.slug} is switched off", assistant=assistant.slug)
    unknown = sorted(new.tools - set(assistant.tools))
    if unknown:
        raise _invalid("tools", f"the assistant {assistant.slug} does not have {', '.join(unknown)}")
    version = await policies.current(session, tenant_id)
    policy = await policies.pinned(session, tenant_id, version.id)
    limits, grant = _limits(policy, assistant, new.limits), _grant(policy, assistant, new.limits)
    facts = WorkItemFacts(
        kind=new.kind,
        data_class=new.data_class,
        reversibility=new.reversibility,
        external_effect=new.external_effect,
        amount_nano_usd=new.amount_nano_usd,
        tools=new.tools,
        assistant=await record_of(session, assistant),
    )
    spec = RunSpec(
        run_id=run_id,
        work_item_id=work_item_id,
        tenant_id=tenant_id,
        assistant_id=assistant.id,
        image=assistant.image,
        command=tuple(assistant.command) if assistant.command is not None else None,
        env={**assistant.env, "AWGP_PARAMETERS": _parameters(new)},
        inputs=_inputs(new),
        limits=limits,
        llm=grant,
    )
    worst_case = cost.to_hold(policy.prices, limits.wall_seconds, grant.budget_nano_usd if grant else 0)
    return _Prepared(assistant, version, policy, facts, spec, worst_case)


def _row(principal: Principal, new: NewWorkItem, prepared: _Prepared, *, key: str, digest: str) -> WorkItemRow:
    return WorkItemRow(
        tenant_id=principal.tenant_id,
        id=prepared.spec.work_item_id,
        idempotency_key=key,
        request_digest=digest,
        assistant_id=prepared.assistant.id,
        requester_id=principal.id,
        policy_version_id=prepared.version.id,
        title=new.title,
        kind=new.kind,
        facts=prepared.facts.model_dump(mode="json") | {"tools": sorted(new.tools)},
        parameters=new.parameters,
        spec=prepared.spec.model_dump(mode="json"),
        spec_digest=spec_digest(prepared.spec),
        worst_case_nano=prepared.worst_case,
    )


def _announce(session: AsyncSession, principal: Principal, row: WorkItemRow, prepared: _Prepared) -> None:
    audit.record(
        session,
        principal,
        kind="work_item.created",
        subject=f"work_item/{row.id}",
        summary=f"{principal.display_name or principal.subject} asked {prepared.assistant.slug} for “{row.title}”",
        work_item_id=row.id,
        data={
            "assistant": prepared.assistant.slug,
            "kind": row.kind,
            "spec_digest": row.spec_digest,
            "policy_version": prepared.version.version,
            "worst_case_nano": str(row.worst_case_nano),
            "files": len(prepared.spec.inputs),
        },
    )
    enqueue(session, row.tenant_id, OutboxKind.START_WORK_ITEM, {"work_item_id": str(row.id)})


def _limits(policy: Policy, assistant: AssistantRow, asked: LimitsAsked) -> Limits:
    """The assistant's limits over the policy's defaults, lowered by what was asked; nothing raises one."""
    granted = {**policy.limits.model_dump(), **assistant.limits}
    wanted = asked.model_dump(exclude_none=True, exclude={"llm_budget_nano_usd"})
    for name, value in wanted.items():
        if value > granted[name]:
            raise _invalid(f"limits.{name}", f"{value} is more than the assistant's {granted[name]}")
    try:
        return Limits.model_validate({**granted, **wanted})
    except ValidationError as error:
        fault = error.errors()[0]
        raise _invalid(f"limits.{'.'.join(str(part) for part in fault['loc'])}", fault["msg"]) from error


def _grant(policy: Policy, assistant: AssistantRow, asked: LimitsAsked) -> LlmGrant | None:
    """What it may spend on models: the assistant's grant within the policy's, lowered by what was asked."""
    wanted = asked.llm_budget_nano_usd
    if not assistant.llm:
        if wanted:
            raise _invalid("limits.llm_budget_nano_usd", f"the assistant {assistant.slug} has no grant for models")
        return None
    own = LlmAsked.model_validate(assistant.llm)
    budget = min(own.budget_nano_usd, policy.llm.most_per_item_nano_usd)
    if wanted is not None and not 0 <= wanted <= budget:
        raise _invalid("limits.llm_budget_nano_usd", f"{wanted} is not between 0 and the assistant's {budget}")
    return LlmGrant(
        budget_nano_usd=budget if wanted is None else wanted,
        models=own.models,
        rpm=min(own.rpm or policy.llm.rpm, policy.llm.rpm),
        tpm=min(own.tpm or policy.llm.tpm, policy.llm.tpm),
    )


def _inputs(new: NewWorkItem) -> tuple[InputFile, ...]:
    paths = [file.path for file in new.inputs]
    for index, path in enumerate(paths):
        if path in paths[:index]:
            raise _invalid(f"inputs[{index}].path", f"{path!r} stands twice")
        if any(other.startswith(path + "/") for other in paths):
            raise _invalid(f"inputs[{index}].path", f"{path!r} is a file and a folder at once")
    return tuple(sorted(new.inputs, key=lambda file: file.path))


def _parameters(new: NewWorkItem) -> str:
    text = json.dumps(new.parameters, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    if len(text.encode()) > MAX_PARAMETERS_BYTES:
        raise _invalid("parameters", f"more than {MAX_PARAMETERS_BYTES} bytes; send larger things as an input file")
    return text


def _checked_key(key: str) -> str:
    if not (1 <= len(key) <= 200 and key.isascii() and key.isprintable()):
        raise _invalid("Idempotency-Key", "1 to 200 printable ASCII characters")
    return key


def _same(known: WorkItemRow, digest: str) -> WorkItemRow:
    if known.request_digest != digest:
        raise IdempotencyMismatch(
            f"this idempotency key made work item {known.id} from another request", work_item_id=str(known.id)
        )
    return known


def _invalid(where: str, what: str) -> InvalidInput:
    return InvalidInput(f"{where}: {what}", errors=[{"where": where, "what": what}])
