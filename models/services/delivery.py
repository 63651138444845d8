"""Sending webhooks: signed (Standard Webhooks), once by their idempotency key, never into our own network.

Source: https://www.standardwebhooks.com (headers `webhook-id`, `webhook-timestamp`, `webhook-signature`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from standardwebhooks import Webhook

from models.domain.errors import DependencyAway, InvalidInput, NotFound
from models.domain.principal import service_principal
from models.repositories import work_items as item_rows
from models.services import audit
from models.services.outbox import OutboxKind
from models.storage.db import Database
from models.tables.records import OutboxRow
from models.tables.tenancy import WebhookRow

TIMEOUT_SECONDS = 15
LARGEST_ANSWER_BYTES = 4096


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses alone, at the connection itself, so that a name cannot change its mind."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The public addresses of a host; raises OSError when it has none."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=socket.AF_UNSPEC)
        public = [entry for entry in found if is_public(str(entry[4][0]))]
        if not public:
            raise OSError(f"{host} has no public address")
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=port, family=kind, proto=proto, flags=socket.AI_NUMERICHOST
            )
            for kind, _, proto, _, address in public
        ]

    async def close(self) -> None:
        """Nothing is kept."""


def is_public(address: str) -> bool:
    """Whether an IP address is reachable on the internet: not private, loopback, link-local or reserved."""
    return ipaddress.ip_address(address.partition("%")[0]).is_global


def check_url(url: str, *, allow_private: bool) -> None:
    """Refuse what a webhook must never be sent to.

    Raises:
        InvalidInput: It is no http(s) URL, carries a password, or names a private address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.password:
        raise InvalidInput("a webhook's URL is https://host/path, without a user or password in it")
    if allow_private:
        return
    if parts.scheme != "https":
        raise InvalidInput("a webhook's URL starts with https://")
    try:
        private = not is_public(parts.hostname)
    except ValueError:
        return  # a name: the resolver looks at its addresses
    if private:
        raise InvalidInput(f"{parts.hostname} is not a public address")


class WebhookSender:
    """Sends one outbox entry's event to the webhook that it names.

    Args:
        db: Reads the entry and the webhook, records what came of it.
        allow_private: Development and tests: receivers on private addresses, without TLS.
    """

    def __init__(self, db: Database, *, allow_private: bool = False) -> None:
        self._db = db
        self._allow_private = allow_private

    async def deliver(self, tenant_id: UUID, outbox_id: UUID) -> str:
        """Send the event; answers in words what came of it.

        Raises:
            DependencyAway: The receiver did not take it: try again later.
            NotFound: There is no such entry.
        """
        entry, hook, body = await self._read(tenant_id, outbox_id)
        if hook is None or not hook.enabled:
            return "the webhook is gone or switched off"
        try:
            check_url(hook.url, allow_private=self._allow_private)
        except InvalidInput as refusal:
            await self._record(tenant_id, entry, hook, f"not sent: {refusal.detail}")
            return refusal.detail
        status = await self._send(hook, str(outbox_id), body)
        if status == 410:
            words = "the receiver is gone (410); not sent again"
        elif 200 <= status < 300:
            words = f"taken with {status}"
        else:
            raise DependencyAway(f"the receiver answered {status}", webhook_id=str(hook.id))
        await self._record(tenant_id, entry, hook, words)
        return words

    async def _read(self, tenant_id: UUID, outbox_id: UUID) -> tuple[OutboxRow, WebhookRow | None, str]:
        async with self._db.session_for(service_principal("delivery", tenant_id)) as session:
            entry = await session.get(OutboxRow, (tenant_id, outbox_id))
            if entry is None or entry.kind != OutboxKind.WEBHOOK:
                raise NotFound(f"there is no outbox entry {outbox_id} for a webhook")
            hook = await session.get(WebhookRow, (tenant_id, UUID(entry.payload["webhook_id"])))
            item = await item_rows.get(session, UUID(entry.payload["work_item_id"]))
            if item is None:
                raise NotFound(f"there is no work item {entry.payload['work_item_id']}")
            data: dict[str, Any] = {
                "work_item_id": str(item.id),
                "title": item.title,
                "status": item.status,
                "outcome": item.outcome,
                "reason": item.reason,
                "risk_level": item.risk_level,
                "cost_nano_usd": str(item.cost_nano or 0),
            }
            body = {"type": entry.payload["event"], "timestamp": entry.created_at.isoformat(), "data": data}
            return entry, hook, json.dumps(body, sort_keys=True)

    async def _send(self, hook: WebhookRow, message_id: str, body: str) -> int:
        now = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(hook.secret).sign(message_id, now, body),
        }
        resolver = None if self._allow_private else PublicResolver()
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as client,
                # A redirect could lead where the URL may not: it counts as an answer, and is not followed.
                client.post(hook.url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                await answer.content.read(LARGEST_ANSWER_BYTES)
                return answer.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise DependencyAway(
                f"the receiver was not reached: {error or type(error).__name__}", webhook_id=str(hook.id)
            ) from error

    async def _record(self, tenant_id: UUID, entry: OutboxRow, hook: WebhookRow, words: str) -> None:
        principal = service_principal("delivery", tenant_id)
        async with self._db.session_for(principal) as session:
            audit.record(
                session,
                principal,
                kind="webhook.delivered" if words.startswith("taken") else "webhook.dropped",
                subject=f"webhook/{hook.id}",
                summary=f"Webhook {entry.payload['event']}: {words}",
                work_item_id=UUID(entry.payload["work_item_id"]),
                data={"outbox_id": str(entry.id), "host": urlsplit(hook.url).hostname or ""},
            )
