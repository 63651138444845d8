"""Sending webhooks: signed (Standard Webhooks), never into our own network."""

from __future__ import annotations

from uuid import UUID

from models.storage.db import Database


class WebhookSender:
    """Sends one outbox entry's event to the tenant's webhooks that want it."""

    def __init__(self, db: Database, *, allow_private: bool = False) -> None:
        self._db = db
        self._allow_private = allow_private

    async def deliver(self, tenant_id: UUID, outbox_id: UUID) -> str:
        """Send the event; answers in words what came of it.

        Raises:
            DependencyAway: A receiver did not take it: try again later.
            NotFound: There is no such entry.
        """
        raise NotImplementedError
