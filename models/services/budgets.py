"""Setting budgets, and reading how much of each is used."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.budget import BudgetScope, BudgetWindow, window_end, window_key
from models.domain.errors import Forbidden, InvalidInput, NotFound
from models.domain.money import MAX_NANO_USD, format_usd
from models.domain.principal import Principal, Role
from models.repositories import assistants as assistant_rows
from models.repositories import budgets as rows
from models.repositories import tenants as tenant_rows
from models.services import audit
from models.services.budget_windows import use_of
from models.services.ids import new_id
from models.services.outbox import OutboxKind, enqueue
from models.tables.money import BudgetRow, EverythingBudgetRow


class BudgetView(BaseModel):
    """A budget and its use in the current window. Amounts are nano-USD."""

    model_config = ConfigDict(frozen=True)

    id: UUID | None
    """None for a budget of everything, which its window names."""
    scope: BudgetScope
    assistant_id: UUID | None = None
    window: BudgetWindow
    window_key: str
    limit_nano: int
    spent_nano: int = 0
    reserved_nano: int = 0
    waiting_nano: int = 0
    left_nano: int = 0
    resets_at: datetime | None = None
    updated_by: str = ""
    updated_at: datetime | None = None


async def set_budget(
    session: AsyncSession,
    principal: Principal,
    *,
    scope: BudgetScope,
    window: BudgetWindow,
    limit_nano: int,
    assistant_id: UUID | None = None,
) -> BudgetView:
    """Create or change one hard limit; wakes what waits for money.

    Raises:
        InvalidInput: `assistant_id` does not fit the scope, or the limit is no amount.
        NotFound: There is no such assistant in the session's tenant.
        Forbidden: Everything's budget, asked for by somebody who is no admin of the holding.
    """
    tenant_id: UUID = session.info["tenant_id"]
    await _check(session, principal, tenant_id, scope, limit_nano, assistant_id)
    if scope is BudgetScope.EVERYTHING:
        await rows.set_everything(session, window.value, limit_nano, principal.subject)
        subject, old = f"budget/everything/{window.value}", None
    else:
        done = await rows.upsert(
            session,
            BudgetRow(
                tenant_id=tenant_id,
                id=new_id(),
                scope=scope.value,
                assistant_id=assistant_id,
                window_kind=window.value,
                limit_nano=limit_nano,
                updated_by=principal.subject,
            ),
        )
        subject, old = f"budget/{done.id}", done.old_limit
    was = f" (was {format_usd(old)})" if old is not None else ""
    audit.record(
        session,
        principal,
        kind="budget.set",
        subject=subject,
        summary=f"Budget of {scope.value} for a {window.value}: {format_usd(limit_nano)}{was}",
        data={
            "scope": scope.value,
            "window": window.value,
            "limit_nano": str(limit_nano),
            "old_limit_nano": None if old is None else str(old),
            "assistant_id": str(assistant_id) if assistant_id else None,
        },
    )
    enqueue(session, tenant_id, OutboxKind.BUDGET_CHANGED, {"everything": scope is BudgetScope.EVERYTHING})
    await session.flush()
    found = await list_budgets(session, principal)
    return next(view for view in found if (view.scope, view.window, view.assistant_id) == (scope, window, assistant_id))


async def _check(
    session: AsyncSession,
    principal: Principal,
    tenant_id: UUID,
    scope: BudgetScope,
    limit_nano: int,
    assistant_id: UUID | None,
) -> None:
    if not 0 <= limit_nano <= MAX_NANO_USD:
        raise InvalidInput(f"limit_nano must be between 0 and {MAX_NANO_USD}", errors=[_wrong("limit_nano")])
    if (scope is BudgetScope.ASSISTANT) != (assistant_id is not None):
        raise InvalidInput(
            "assistant_id is given for an assistant's budget, and for no other", errors=[_wrong("assistant_id")]
        )
    if scope is BudgetScope.EVERYTHING and not (principal.is_holding and Role.HOLDING_ADMIN in principal.roles):
        raise Forbidden("only an admin of the holding sets the budget of everything")
    if assistant_id is not None:
        assistant = await assistant_rows.get(session, assistant_id)
        if assistant is None or assistant.tenant_id != tenant_id:
            raise NotFound(f"there is no assistant {assistant_id}")


def _wrong(where: str) -> dict[str, str]:
    return {"where": where, "what": "is not acceptable"}


async def list_budgets(session: AsyncSession, principal: Principal, now: datetime | None = None) -> list[BudgetView]:
    """The budgets of the session's tenant and of everything, with their use in the window of `now`."""
    now = now or await tenant_rows.database_now(session)
    views: list[BudgetView] = []
    for budget in await rows.of_tenant(session, session.info["tenant_id"]):
        key = window_key(now, BudgetWindow(budget.window_kind))
        window = await rows.window(session, budget.tenant_id, budget.id, key)
        use = use_of(budget.limit_nano, window)
        views.append(_view(budget, now, key, use.spent, use.reserved, use.waiting, use.left))
    for budget in await rows.everything(session):
        key = window_key(now, BudgetWindow(budget.window_kind))
        use = use_of(budget.limit_nano, await rows.everything_window(session, budget.window_kind, key))
        views.append(_view(budget, now, key, use.spent, use.reserved, use.waiting, use.left))
    return views


def _view(
    budget: BudgetRow | EverythingBudgetRow,
    now: datetime,
    key: str,
    spent: int,
    reserved: int,
    waiting: int,
    left: int,
) -> BudgetView:
    own = isinstance(budget, BudgetRow)
    window = BudgetWindow(budget.window_kind)
    return BudgetView(
        id=budget.id if own else None,
        scope=BudgetScope(budget.scope) if own else BudgetScope.EVERYTHING,
        assistant_id=budget.assistant_id if own else None,
        window=window,
        window_key=key,
        limit_nano=budget.limit_nano,
        spent_nano=spent,
        reserved_nano=reserved,
        waiting_nano=waiting,
        left_nano=left,
        resets_at=window_end(now, window),
        updated_by=budget.updated_by,
        updated_at=budget.updated_at,
    )
