"""The kill switch: for everything, a tenant or an assistant; set and lifted by those whose it is."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.errors import Conflict, Forbidden, NotFound
from models.domain.principal import Principal, Role
from models.domain.views import HaltState
from models.repositories import assistants as assistant_rows
from models.repositories import halts as rows
from models.repositories import tenants as tenant_rows
from models.repositories import work_items as item_rows
from models.services import audit, lifecycle
from models.services.outbox import OutboxKind, enqueue
from models.tables.tenancy import HaltRow


class HaltScope(StrEnum):
    """How wide a halt is."""

    EVERYTHING = "everything"
    TENANT = "tenant"
    ASSISTANT = "assistant"


class HaltMode(StrEnum):
    """`kill` ends what runs; `hold` lets it run, and nothing new starts."""

    KILL = "kill"
    HOLD = "hold"


async def set_halt(
    session: AsyncSession,
    principal: Principal,
    *,
    scope: HaltScope,
    tenant_id: UUID | None = None,
    assistant_id: UUID | None = None,
    mode: HaltMode = HaltMode.KILL,
    reason: str = "",
) -> HaltState:
    """Raise the halt's epoch, so that every warrant minted before it is void, and put it in force.

    The runs of the caller's own tenant are told to end at once. Those of other tenants (a holding's halt of a
    subsidiary or of everything) are told by whoever handles the outbox entry `halt_changed`, tenant by tenant
    (`kill_runs`); their warrants are void already, and broker and runtimes see the epoch.

    `tenant_id` says whose (None: the principal's own); `assistant_id` goes with the scope `assistant`.

    Raises:
        NotFound: The principal's company sees no such tenant or assistant.
        Forbidden: It is not this principal's to halt; what the holding halted, the holding changes, and what an admin
            halted, an admin.
    """
    target = await _target(session, principal, scope, tenant_id, assistant_id)
    known = await rows.get(session, scope.value, _key(scope, target, assistant_id))
    if known is not None and known.active:
        _check_whose(principal, known)
    state = await _change(session, principal, scope, target, assistant_id, active=True, mode=mode, reason=reason)
    if mode is HaltMode.KILL and (scope is HaltScope.EVERYTHING or target == principal.tenant_id):
        await kill_runs(session, principal, scope, state.epoch, assistant_id)
    return state


async def lift(
    session: AsyncSession,
    principal: Principal,
    *,
    scope: HaltScope,
    tenant_id: UUID | None = None,
    assistant_id: UUID | None = None,
    reason: str = "",
) -> HaltState:
    """Lift a halt; what it held back goes on. The epoch stays, so warrants from before it stay void.

    Raises:
        Conflict: Nothing is halted there.
        Forbidden: It is not this principal's to lift; what the holding halted, the holding lifts, and what an admin
            halted, an admin.
    """
    target = await _target(session, principal, scope, tenant_id, assistant_id)
    row = await rows.get(session, scope.value, _key(scope, target, assistant_id))
    if row is None or not row.active:
        raise Conflict("nothing is halted there")
    _check_whose(principal, row)
    return await _change(
        session, principal, scope, target, assistant_id, active=False, mode=HaltMode(row.mode), reason=reason
    )


async def list_halts(session: AsyncSession, principal: Principal, *, active_only: bool = False) -> list[HaltState]:
    """Halts that concern what the principal's company sees, the newest change first."""
    tenants = [row.tenant_id for row in await tenant_rows.visible(session)]
    found = await rows.of_tenants(session, tenants)
    return [_state(row) for row in found if row.active or not active_only]


async def kill_runs(
    session: AsyncSession, principal: Principal, scope: HaltScope, epoch: int, assistant_id: UUID | None = None
) -> int:
    """Tell the bound tenant's live runs that a halt concerns to end `halted`; answers how many.

    Those are the runs whose warrant is from before the halt's `epoch`: a halt that is handled late, when it has been
    lifted meanwhile, does not end what was started after it. A run that is only queued is left: its item is held
    until the halt is lifted.
    """
    live = await item_rows.live_runs_before(session, session.info["tenant_id"], scope.value, epoch, assistant_id)
    for run in live:
        lifecycle.kill_run(session, principal, run, "halted")
    await session.flush()
    return len(live)


def _check_whose(principal: Principal, row: HaltRow) -> None:
    """A halt in force is neither lifted nor made milder by one who stands below whoever set it."""
    if not principal.is_holding and not row.changed_by.startswith(f"{principal.tenant_id}/"):
        raise Forbidden("the holding halted this; the holding changes it")
    # What is left is the assistant's owner: their own halt alone.
    if not _is_admin(principal) and not row.changed_by.startswith(f"{principal.tenant_id}/{principal.id}/"):
        raise Forbidden("an admin halted this; an admin changes it")


def _is_admin(principal: Principal) -> bool:
    return Role.TENANT_ADMIN in principal.roles or (principal.is_holding and Role.HOLDING_ADMIN in principal.roles)


async def _target(
    session: AsyncSession,
    principal: Principal,
    scope: HaltScope,
    tenant_id: UUID | None,
    assistant_id: UUID | None,
) -> UUID:
    """The tenant meant, once it is known to be this principal's to halt."""
    holding_admin = principal.is_holding and Role.HOLDING_ADMIN in principal.roles
    target = tenant_id or principal.tenant_id
    if await tenant_rows.get(session, target) is None:
        raise NotFound(f"there is no tenant {target}")
    owns = False
    if scope is HaltScope.ASSISTANT:
        assistant = await assistant_rows.get(session, assistant_id) if assistant_id else None
        if assistant is None or assistant.tenant_id != target:
            raise NotFound(f"there is no assistant {assistant_id}")
        owns = assistant.owner_id == principal.id and target == principal.tenant_id
    tenant_admin = target == principal.tenant_id and Role.TENANT_ADMIN in principal.roles
    if holding_admin or (scope is not HaltScope.EVERYTHING and (tenant_admin or owns)):
        return target
    raise Forbidden(f"halting {scope.value} takes an admin (of the holding, for everything and for its companies)")


async def _change(
    session: AsyncSession,
    principal: Principal,
    scope: HaltScope,
    target: UUID,
    assistant_id: UUID | None,
    *,
    active: bool,
    mode: HaltMode,
    reason: str,
) -> HaltState:
    key = _key(scope, target, assistant_id)
    who = f"{principal.id}/{principal.username or principal.subject}"
    await rows.change(
        session, scope.value, target, assistant_id, active=active, mode=mode.value, reason=reason, who=who
    )
    row = await rows.get(session, scope.value, key)
    assert row is not None, "set_halt has just written it"
    verb = "halted" if active else "lifted the halt of"
    audit.record(
        session,
        principal,
        kind="halt.set" if active else "halt.lifted",
        subject=f"halt/{scope.value}/{key}",
        summary=f"{principal.display_name or principal.subject} {verb} {_words(scope, key)}"
        + (f": {reason}" if reason else ""),
        data={"scope": scope.value, "key": key, "mode": mode.value, "epoch": row.epoch, "reason": reason},
    )
    payload = {"scope": scope.value, "key": key, "active": active, "mode": mode.value, "epoch": row.epoch}
    enqueue(session, principal.tenant_id, OutboxKind.HALT_CHANGED, payload)
    await session.flush()
    return _state(row)


def _key(scope: HaltScope, target: UUID, assistant_id: UUID | None) -> str:
    match scope:
        case HaltScope.EVERYTHING:
            return "everything"
        case HaltScope.TENANT:
            return str(target)
        case HaltScope.ASSISTANT:
            return f"{target}/{assistant_id}"


def _words(scope: HaltScope, key: str) -> str:
    return "everything" if scope is HaltScope.EVERYTHING else f"the {scope.value} {key.rsplit('/', 1)[-1]}"


def _state(row: HaltRow) -> HaltState:
    return HaltState(
        scope=row.scope,
        key=row.key,
        active=row.active,
        mode=row.mode,
        reason=row.reason,
        changed_by=row.changed_by.split("/", 2)[-1],
        changed_at=row.changed_at,
        epoch=row.epoch,
    )
