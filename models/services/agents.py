"""An agent at our door: who it is, and whether what it stands on lives, under row locks."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import AgentCaller
from models.domain.errors import Forbidden, NotFound
from models.domain.principal import Principal, PrincipalKind
from models.domain.work_item import WorkItemStatus
from models.repositories import assistants as assistant_rows
from models.repositories import runs as run_rows
from models.repositories import work_items as item_rows
from models.services import halts
from models.tables.execution import RunRow
from models.tables.tenancy import AssistantRow
from models.tables.work import WorkItemRow

_RUNS = frozenset({WorkItemStatus.RUNNING, WorkItemStatus.AWAITING_ACTION})


@dataclass(frozen=True)
class Standing:
    """What an agent stands on, as the database holds it now.

    Attributes:
        item: Its work item, locked; None for an agent that runs elsewhere.
        run: Its run, locked; likewise.
    """

    assistant: AssistantRow
    principal: Principal
    item: WorkItemRow | None
    run: RunRow | None


def principal_of(assistant: AssistantRow) -> Principal:
    """The assistant as the actor of what its agents do."""
    return Principal(
        tenant_id=assistant.tenant_id,
        id=assistant.id,
        kind=PrincipalKind.ASSISTANT,
        subject=f"assistant/{assistant.slug}",
        username=assistant.slug,
        display_name=assistant.name,
    )


async def lock_standing(session: AsyncSession, caller: AgentCaller) -> Standing:
    """Lock the caller's work item and run (in this order), and see that both live and are its own.

    Raises:
        Forbidden: The run has ended or is to end, is in another attempt or under another warrant, or is halted; or the
            assistant is switched off. `code` says which.
    """
    item = run = None
    if caller.work_item_id is not None and caller.run_id is not None:
        item = await item_rows.lock(session, caller.work_item_id)
        run = await run_rows.lock(session, caller.run_id)
        _require_live(caller, item, run)
    assistant = await assistant_rows.get(session, caller.assistant_id)
    if assistant is None or assistant.tenant_id != caller.tenant_id:
        raise NotFound("there is no such assistant")
    if not assistant.enabled and item is None:
        raise Forbidden(f"the assistant {assistant.slug} is switched off", code="assistant_off")
    halt = await halts.active_halt(session, caller.tenant_id, caller.assistant_id)
    # A halt that holds lets runs go on; an agent elsewhere has no run that could.
    if halt is not None and (item is None or halt.mode == "kill"):
        raise Forbidden(f"{halt.scope} is halted: {halt.reason}", code="halted")
    return Standing(assistant, principal_of(assistant), item, run)


def item_of(standing: Standing) -> WorkItemRow:
    """The work item of a standing that must have one.

    Raises:
        Forbidden: The agent runs elsewhere.
    """
    if standing.item is None:
        raise Forbidden("this is for agents that run inside: a key has no run", code="no_run")
    return standing.item


def run_of(standing: Standing) -> RunRow:
    """The run of a standing that must have one; raises as `item_of` does."""
    item_of(standing)
    assert standing.run is not None, "they are locked together"
    return standing.run


def _require_live(caller: AgentCaller, item: WorkItemRow | None, run: RunRow | None) -> None:
    if item is None or run is None or run.work_item_id != item.id or item.assistant_id != caller.assistant_id:
        raise Forbidden("the warrant names a run that there is not", code="run")
    if run.status not in run_rows.LIVE or item.status not in _RUNS:
        raise Forbidden("this run has ended", code="run_ended")
    if run.attempt != caller.attempt:
        raise Forbidden(f"this is attempt {caller.attempt}; the run is in attempt {run.attempt}", code="attempt")
    if run.warrant_id != caller.warrant_id:
        raise Forbidden("the run goes on under another warrant", code="warrant")
    if run.kill_reason is not None or item.cancel_requested_at is not None:
        raise Forbidden("this run is to end", code="ending")
