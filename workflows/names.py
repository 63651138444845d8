"""Ids, names and inputs by which workflows are found."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel, ConfigDict
from temporalio.common import SearchAttributeKey

LOOK_AGAIN = "look_again"
"""The only signal. It carries nothing: the receiver reads what PostgreSQL holds."""
RECONCILE_SCHEDULE = "reconcile"

TENANT = SearchAttributeKey.for_keyword("AwgpTenant")
ASSISTANT = SearchAttributeKey.for_keyword("AwgpAssistant")
RISK_LEVEL = SearchAttributeKey.for_keyword("AwgpRiskLevel")
STATUS = SearchAttributeKey.for_keyword("AwgpStatus")
AWAITING = SearchAttributeKey.for_keyword("AwgpAwaiting")
SEARCH_ATTRIBUTES = (TENANT, ASSISTANT, RISK_LEVEL, STATUS, AWAITING)


def work_item_workflow_id(tenant_id: UUID, work_item_id: UUID) -> str:
    """One workflow a work item, for ever."""
    return f"work-item/{tenant_id}/{work_item_id}"


def approval_workflow_id(approval_id: UUID) -> str:
    """One workflow an approval."""
    return f"approval/{approval_id}"


def delivery_workflow_id(outbox_id: UUID) -> str:
    """One workflow an outbox entry that leaves the house."""
    return f"delivery/{outbox_id}"


def effect_workflow_id(tenant_id: UUID, action_id: UUID) -> str:
    """One workflow an action whose effect is performed; begun again when people have said so."""
    return f"effect/{tenant_id}/{action_id}"


class _Input(BaseModel):
    model_config = ConfigDict(frozen=True)


class WorkItemStart(_Input):
    """Input of `WorkItemWorkflow`.

    Attributes:
        generation: How often this workflow was continued as new; part of each `op_id`, so that ordinals may start anew.
    """

    tenant_id: UUID
    work_item_id: UUID
    generation: int = 0


class ApprovalStart(_Input):
    """Input of `ApprovalWorkflow`; when it ends and whom it reminds is read from PostgreSQL.

    Attributes:
        work_item_id: None: it is about an action of an agent that runs elsewhere.
    """

    tenant_id: UUID
    work_item_id: UUID | None = None
    approval_id: UUID


class DeliveryStart(_Input):
    """Input of `DeliveryWorkflow`."""

    tenant_id: UUID
    outbox_id: UUID


class EffectStart(_Input):
    """Input of `EffectWorkflow`; `generation` as in `WorkItemStart`."""

    tenant_id: UUID
    action_id: UUID
    generation: int = 0


class ReconcileStart(_Input):
    """Input of `ReconcileWorkflow`.

    Attributes:
        page: Rows a page.
    """

    page: int = 200
