"""What a run's agent does beside asking: tells how far it is, saves its state, hands files over, reads its task."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import AgentCaller
from models.domain.errors import Conflict, Forbidden
from models.domain.events import EventKind
from models.domain.money import format_usd
from models.domain.views import View
from models.repositories import actions as action_rows
from models.repositories import agents as rows
from models.repositories import item_events as event_rows
from models.repositories import runs as run_rows
from models.repositories import tenants as tenant_rows
from models.repositories import work_items as item_rows
from models.services import agents, events, policies, uploads
from models.services.action_effects import invalid
from models.services.uploads import Uploaded
from models.tables.actions import RunStateRow
from models.tables.work import WorkItemFileRow
from sandbox.spec import FilePath, RunSpec

MOST_FILES = 1000
MOST_STATES = 256
"""How often a run saves its state: each leaves up to 1 MiB in the blob store, which forgets nothing."""
MOST_EVENTS = 20_000
"""Of an item's timeline: beyond them nothing more that its agent may say as often as it likes."""
_PATH: TypeAdapter[str] = TypeAdapter(FilePath)


class Progress(BaseModel):
    """How far an agent is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: Annotated[str, Field(min_length=1, max_length=2000)]
    percent: Annotated[int, Field(ge=0, le=100)] | None = None


class InputView(View):
    """A file that the agent finds below `AWGP_INPUT_DIR`."""

    path: str
    sha256: str
    size: int


class AgentContext(View):
    """What an agent is for, and what is left to it.

    Attributes:
        seconds_left: Of its wall time.
        models_left_nano: Of its grant for model calls; None: it has none.
        actions_left: How many it may yet ask for.
        continuation: What was decided while the run was suspended; None where it never was.
        has_state: Whether an earlier attempt saved something (`GET /state`).
    """

    work_item_id: UUID
    run_id: UUID
    attempt: int
    title: str
    kind: str
    data_class: str
    parameters: dict[str, Any]
    inputs: tuple[InputView, ...]
    requester: str
    seconds_left: int | None
    models: tuple[str, ...]
    models_granted: str | None
    models_left: str | None
    models_left_nano: int | None
    actions_left: int
    continuation: dict[str, Any] | None
    has_state: bool


async def report_progress(session: AsyncSession, caller: AgentCaller, progress: Progress) -> None:
    """Put the agent's word on how far it is into the item's timeline.

    Raises:
        Conflict: The timeline is as long as an agent may make it.
    """
    item_id, run_id = _of_run(caller)
    await _room_for_more(session, caller.tenant_id, item_id)
    data = {"words": progress.words, "percent": progress.percent, "run_id": str(run_id), "attempt": caller.attempt}
    await events.add(session, caller.tenant_id, item_id, EventKind.PROGRESS, data)


async def check_room_for_state(session: AsyncSession, caller: AgentCaller) -> None:
    """Refuse what would be kept in the blob store, before it is.

    Raises:
        Conflict: The run has saved its state too often.
    """
    _, run_id = _of_run(caller)
    saved = await rows.state_of(session, caller.tenant_id, run_id)
    if saved is not None and saved.saves >= MOST_STATES:
        raise Conflict(f"this run has saved its state {MOST_STATES} times; the last one stands", limit=MOST_STATES)


async def save_state(session: AsyncSession, caller: AgentCaller, saved: Uploaded) -> None:
    """Keep what the agent saved for its next attempt; its bytes are in the blob store.

    Raises:
        Forbidden: The run is in a later attempt.
    """
    _, run_id = _of_run(caller)
    row = RunStateRow(
        tenant_id=caller.tenant_id,
        run_id=run_id,
        sha256=saved.sha256,
        size=saved.size,
        attempt=caller.attempt or 0,
    )
    await agents.lock_standing(session, caller)
    if not await rows.save_state(session, row):
        raise Forbidden("a later attempt of this run has saved its state", code="attempt")


async def saved_state(session: AsyncSession, caller: AgentCaller) -> Uploaded | None:
    """What an attempt of this run saved last."""
    _, run_id = _of_run(caller)
    row = await rows.state_of(session, caller.tenant_id, run_id)
    return Uploaded(sha256=row.sha256, size=row.size) if row is not None else None


async def save_artifact(session: AsyncSession, caller: AgentCaller, path: str, saved: Uploaded) -> None:
    """Name a content as a file that came out of the work; the same path again replaces it.

    Raises:
        InvalidInput: The path is none that a file may have.
        Conflict: The run's files together would be larger than its limit, or it has saved too often.
    """
    try:
        _PATH.validate_python(path)
    except ValidationError as error:
        raise invalid("path", error.errors()[0]["msg"].removeprefix("Value error, ")) from error
    standing = await agents.lock_standing(session, caller)
    item = agents.item_of(standing)
    await _room_for_more(session, item.tenant_id, item.id)
    others = [file for file in await item_rows.files(session, item.id, "out") if file.path != path]
    limit = RunSpec.model_validate(item.spec).limits.artifact_bytes
    if sum(file.size for file in others) + saved.size > limit or len(others) >= MOST_FILES:
        raise Conflict(f"the files of this run would be more than {limit} bytes or {MOST_FILES} in number", limit=limit)
    await rows.put_file(
        session,
        WorkItemFileRow(
            tenant_id=item.tenant_id,
            work_item_id=item.id,
            direction="out",
            path=path,
            sha256=saved.sha256,
            size=saved.size,
        ),
    )
    await uploads.record_upload(session, standing.principal, saved)
    data = {"path": path, "sha256": saved.sha256, "size": saved.size, "direction": "out"}
    await events.add(session, item.tenant_id, item.id, EventKind.FILE, data)


async def context_of(session: AsyncSession, caller: AgentCaller) -> AgentContext:
    """What the agent is for, and what is left to it."""
    item_id, run_id = _of_run(caller)
    item, run = await item_rows.get(session, item_id), await run_rows.get(session, run_id)
    if item is None or run is None:
        raise Forbidden("the warrant names a run that there is not", code="run")
    spec = RunSpec.model_validate(item.spec)
    policy = await policies.pinned(session, item.tenant_id, item.policy_version_id)
    _, requester = await item_rows.people_of(session, item)
    asked, _ = await action_rows.counts(session, item.tenant_id, item.assistant_id, item.id)
    grant = spec.llm
    left = None
    if grant is not None:
        left = max(0, grant.budget_nano_usd - await rows.spent_on_models(session, item.tenant_id, item.id))
    now = await tenant_rows.database_now(session)
    ran = (now - run.started_at).total_seconds() if run.started_at is not None else None
    return AgentContext(
        work_item_id=item.id,
        run_id=run.id,
        attempt=run.attempt,
        title=item.title,
        kind=item.kind,
        data_class=str(item.facts.get("data_class", "")),
        parameters=item.parameters,
        inputs=tuple(InputView(path=file.path, sha256=file.sha256, size=file.size) for file in spec.inputs),
        requester=requester.display_name or requester.username,
        seconds_left=max(0, int(spec.limits.wall_seconds - ran)) if ran is not None else None,
        models=grant.models if grant is not None else (),
        models_granted=format_usd(grant.budget_nano_usd) if grant is not None else None,
        models_left=format_usd(left) if left is not None else None,
        models_left_nano=left,
        actions_left=max(0, policy.actions.most_per_item - asked),
        continuation=run.continuation,
        has_state=await rows.state_of(session, item.tenant_id, run.id) is not None,
    )


async def _room_for_more(session: AsyncSession, tenant_id: UUID, work_item_id: UUID) -> None:
    if await event_rows.head(session, tenant_id, work_item_id) >= MOST_EVENTS:
        raise Conflict(f"this work item's timeline has {MOST_EVENTS} events; its agent adds no more", limit=MOST_EVENTS)


def _of_run(caller: AgentCaller) -> tuple[UUID, UUID]:
    if caller.work_item_id is None or caller.run_id is None:
        raise Forbidden("this is for agents that run inside: a key has no run", code="no_run")
    return caller.work_item_id, caller.run_id
