"""An assistant's past, as the risk rules see it."""

from __future__ import annotations

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.work_item import AssistantRecord
from models.repositories import tenants as tenant_rows
from models.repositories import work_items as rows
from models.tables.tenancy import AssistantRow


async def record_of(session: AsyncSession, assistant: AssistantRow) -> AssistantRecord:
    """Count the assistant's record now, by the database's clock."""
    now = await tenant_rows.database_now(session)
    return AssistantRecord(
        runs=assistant.succeeded_count + assistant.failed_count,
        failed=assistant.failed_count,
        rejected=await rows.count_rejected(session, assistant.tenant_id, assistant.id),
        age_days=max(0, (now - assistant.created_at).days),
        restartable=assistant.restartable,
    )
