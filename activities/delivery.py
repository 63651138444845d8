"""`deliver`: one webhook leaves the house."""

from __future__ import annotations

from temporalio import activity

from activities.signatures import DeliveryInput, DeliveryOutput
from models.services.delivery import WebhookSender


class Deliveries:
    """Sends what the outbox holds for receivers outside."""

    def __init__(self, sender: WebhookSender) -> None:
        self._sender = sender

    @activity.defn(name="deliver")
    async def deliver(self, given: DeliveryInput) -> DeliveryOutput:
        """Send one webhook, signed, with the outbox entry's id as its idempotency key.

        Raises:
            DependencyAway: The receiver did not take it: tried again.
        """
        words = await self._sender.deliver(given.tenant_id, given.outbox_id)
        return DeliveryOutput(delivered=words.startswith("taken"), words=words)
