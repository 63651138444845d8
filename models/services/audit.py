"""Recording what happened, as part of the transaction in which it happened."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.events import AUDITED, ItemEvent
from models.domain.principal import Principal
from models.storage.audit_chain import AuditEvent, append_audit
from models.storage.event_order import append_event


def record(
    session: AsyncSession,
    principal: Principal,
    *,
    kind: str,
    subject: str,
    summary: str,
    work_item_id: UUID | None = None,
    data: dict[str, Any] | None = None,
    tenant_id: UUID | None = None,
) -> None:
    """Append one event to the tenant's trail; sealed into the chain when the transaction commits.

    What is audited of a work item, its runs and approvals is told to the item's live timeline too.

    Args:
        session: The transaction in which it happened.
        principal: Who did it.
        work_item_id: The work item in whose timeline it stands.
        kind: Dotted word, e.g. `approval.decided`.
        subject: `<thing>/<id>`.
        summary: One line for people.
        data: Small JSON values; money in nano-USD as text, since it may exceed 2^53.
        tenant_id: The trail; by default the one that the session is bound to.
    """
    append_audit(
        session,
        AuditEvent(
            tenant_id=tenant_id or session.info["tenant_id"],
            kind=kind,
            actor_tenant_id=principal.tenant_id,
            actor_id=principal.subject or str(principal.id),
            actor_name=principal.display_name,
            work_item_id=work_item_id,
            subject=subject,
            summary=summary,
            data=data or {},
        ),
    )
    told_as = AUDITED.get(kind.partition(".")[0])
    if work_item_id is not None and told_as is not None and tenant_id in (None, session.info["tenant_id"]):
        told = {"what": kind.partition(".")[2], "about": subject, "summary": summary, "details": data or {}}
        told["by"] = principal.display_name or principal.subject or str(principal.id)
        append_event(session, ItemEvent(work_item_id=work_item_id, kind=told_as, data=told))
