"""What a runtime's report of an end makes of the run, and the files that the agent left."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.events import EventKind, ItemEvent
from models.domain.principal import Principal
from models.rules.waiting import Waiting
from models.services import events, waiting
from models.services.runs import end_run, give_up
from models.tables.execution import RunRow
from models.tables.work import WorkItemFileRow, WorkItemRow
from sandbox.spec import Artifact, RunOutcome, RunResult

NEVER_RAN_TO_AN_END = frozenset({RunOutcome.NOT_STARTED, RunOutcome.LEASE_LOST, RunOutcome.RUNTIME_GONE})


async def record_end(
    session: AsyncSession, principal: Principal, item: WorkItemRow, run: RunRow, result: RunResult
) -> None:
    """Write the end of an attempt whose runtime holds it. Item and run are locked."""
    if result.outcome is RunOutcome.SUSPENDED:
        if run.waiting == Waiting.SUSPENDED and run.kill_reason is None and item.cancel_requested_at is None:
            await waiting.suspended(session, principal, item, run, result)
            return
        # To be killed since, or nobody has asked for it: what a runtime ends of its own accord is gone.
        result = result.model_copy(update={"outcome": RunOutcome.RUNTIME_GONE})
    if result.outcome in NEVER_RAN_TO_AN_END:
        await give_up(session, principal, item, run, result)
        return
    told = [_left(item.id, artifact) for artifact in result.artifacts]
    await events.add_many(session, item.tenant_id, told)
    for artifact in result.artifacts:
        connection = await session.connection()
        await connection.execute(
            insert(WorkItemFileRow)
            .values(
                tenant_id=item.tenant_id,
                work_item_id=item.id,
                direction="out",
                path=artifact.path,
                sha256=artifact.sha256,
                size=artifact.size,
            )
            # What was saved in mid-run under the same path is replaced, as saving again does.
            .on_conflict_do_update(
                index_elements=["tenant_id", "work_item_id", "direction", "path"],
                set_={"sha256": artifact.sha256, "size": artifact.size},
            )
        )
    await end_run(session, principal, item, run, result)


def _left(work_item_id: UUID, artifact: Artifact) -> ItemEvent:
    data = {"direction": "out", **artifact.model_dump(mode="json")}
    source = f"file/out/{artifact.path}/{artifact.sha256}"
    return ItemEvent(work_item_id=work_item_id, kind=EventKind.FILE, data=data, source=source)
