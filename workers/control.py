"""The control worker: workflows, short activities, and the warrant key. ``python -m workers.control``.

Any number may run. It alone can sign a warrant; what it signs, it has recomputed from PostgreSQL.
"""

from __future__ import annotations

import asyncio
import warnings
from datetime import timedelta

import structlog
from temporalio.client import Client
from temporalio.worker import Worker

from activities.approval import Approvals
from activities.delivery import Deliveries
from activities.effects import Effects
from activities.errors import DomainErrors
from activities.following import LostRuns
from activities.money import Money
from activities.reconcile import Reconciliation
from activities.warrants import Warrants
from activities.work_item import WorkItems
from models.services.delivery import WebhookSender
from models.services.llm_closing import ModelCloser
from models.services.outbound_http import HttpSender
from models.services.warrant_keys import EdDsaSigner, WarrantSigner
from models.settings import Settings
from models.storage.db import Database
from models.storage.llm_money import LlmMoney
from models.storage.vault import Vault
from workers.process import set_up_logging, stop_event, wait_for
from workflows.approval import ApprovalWorkflow
from workflows.client import WorkflowGateway, connect
from workflows.delivery import DeliveryWorkflow
from workflows.effect import EffectWorkflow
from workflows.options import CONTROL_QUEUE
from workflows.reconcile import ReconcileWorkflow
from workflows.work_item import WorkItemWorkflow

CACHED_WORKFLOWS = 200
"""Kept in memory; one that was evicted is replayed from its history in some milliseconds."""
AT_ONCE = 50
"""Workflow tasks and activities of each kind at once; the pool of connections is the narrower gate."""
GRACE = timedelta(seconds=5)
"""For activities to end at a shutdown: a transaction takes milliseconds; a delivery that is cut off is sent again."""

log = structlog.get_logger("control")


def control_worker(
    client: Client,
    app: Database,
    system: Database,
    signer: WarrantSigner,
    *,
    private_webhooks: bool = False,
    private_connectors: bool = False,
    vault: Vault | None = None,
    llm_money: LlmMoney | None = None,
) -> Worker:
    """The worker of the queue `control`."""
    effects = Effects(app, signer, HttpSender(allow_private=private_connectors), vault)
    closer = ModelCloser(app, llm_money)
    # A step that ended in the very moment of its timeout; where warnings are errors this one would end the worker.
    warnings.filterwarnings("ignore", "Cannot find activity to cancel", UserWarning)
    items, asked, money = WorkItems(app, closer), Approvals(app), Money(app)
    reconciliation = Reconciliation(app, system, WorkflowGateway(client), closer)
    return Worker(
        client,
        task_queue=CONTROL_QUEUE,
        workflows=[WorkItemWorkflow, ApprovalWorkflow, EffectWorkflow, DeliveryWorkflow, ReconcileWorkflow],
        activities=[
            items.assess_work_item,
            items.read_work_item,
            items.queue_run,
            items.finish_work_item,
            items.close_work_item,
            items.note_cancel,
            asked.open_approval,
            asked.describe_approval,
            asked.read_approval,
            asked.expire_approval,
            asked.cancel_approval,
            asked.remind_approvers,
            money.reserve_budget,
            Warrants(app, signer, closer).mint_warrant,
            LostRuns(app).end_lost_run,
            Deliveries(WebhookSender(app, allow_private=private_webhooks)).deliver,
            reconciliation.reconcile_work_items,
            effects.mint_effect,
            effects.perform_effect,
            effects.settle_effect,
            effects.advance_staged,
            reconciliation.reconcile_approvals,
            reconciliation.reconcile_effects,
            reconciliation.reconcile_money,
        ],
        interceptors=[DomainErrors()],
        max_cached_workflows=CACHED_WORKFLOWS,
        max_concurrent_workflow_tasks=AT_ONCE,
        max_concurrent_activities=AT_ONCE,
        max_concurrent_local_activities=AT_ONCE,
        graceful_shutdown_timeout=GRACE,
    )


async def main() -> None:
    """Compose the worker and run it until the process is told to end."""
    settings = Settings()
    set_up_logging(settings.log_level)
    stop = stop_event()
    app = Database(settings.secret("database_app_url"), pool_size=settings.database_pool_size * 2)
    system = Database(settings.secret("database_system_url"), pool_size=3)
    signer = EdDsaSigner(settings.secret("warrant_private_key"))
    llm_money = LlmMoney(settings.secret("redis_url"))
    keys = settings.secret_store_key
    await wait_for("PostgreSQL", app.ping)
    client = await connect(
        settings.temporal_address,
        settings.temporal_namespace,
        waiting=lambda why: log.warning("waiting", dependency="Temporal", why=why),
    )
    await wait_for("the schedule", WorkflowGateway(client).ensure_schedule)
    log.info("control_started")
    try:
        async with control_worker(
            client,
            app,
            system,
            signer,
            private_webhooks=settings.allow_private_webhooks,
            private_connectors=settings.allow_private_connectors,
            vault=Vault(keys.get_secret_value()) if keys is not None else None,
            llm_money=llm_money,
        ):
            await stop.wait()
    finally:
        await llm_money.shut()
        await system.close()
        await app.close()


if __name__ == "__main__":
    asyncio.run(main())
