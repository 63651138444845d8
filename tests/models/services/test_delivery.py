"""Webhooks leave signed, once by their key, and never into our own network."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from sqlmodel import col, select
from standardwebhooks import Webhook

from models.domain.errors import DependencyAway, InvalidInput
from models.domain.work_item import WorkItemStatus
from models.services import lifecycle
from models.services.delivery import PublicResolver, WebhookSender, check_url
from models.services.ids import new_id
from models.storage.db import Database
from models.tables.records import AuditEventRow, OutboxRow
from models.tables.tenancy import WebhookRow
from tests.fixtures.companies import Company
from tests.fixtures.work import Work, control

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Receiver:
    status: int = 200
    taken: list[tuple[dict[str, str], str]] = field(default_factory=list)
    url: str = ""

    async def take(self, request: web.Request) -> web.Response:
        self.taken.append((dict(request.headers), await request.text()))
        return web.Response(status=self.status)


@pytest.fixture
async def receiver() -> AsyncGenerator[Receiver]:
    found = Receiver()
    app = web.Application()
    app.router.add_post("/hook", found.take)
    server = TestServer(app)
    await server.start_server()
    found.url = str(server.make_url("/hook"))
    yield found
    await server.close()


async def _ended_item(db: Database, acme: Company, work: Work, url: str) -> UUID:
    async with db.session_for(control(acme.id)) as session:
        session.add(WebhookRow(tenant_id=acme.id, id=new_id(), url=url, secret=SECRET, events=[]))
    item = await work.assessed(acme, "L1")
    async with db.session_for(control(acme.id)) as session:
        await lifecycle.close(session, control(acme.id), item.id, WorkItemStatus.CANCELLED, "not needed")
    async with db.session_for(control(acme.id)) as session:
        entry = (await session.exec(select(OutboxRow).where(col(OutboxRow.kind) == "webhook"))).one()
    return entry.id


async def test_it_arrives_signed_with_the_entrys_id_as_its_key(
    db: Database, acme: Company, work: Work, receiver: Receiver
) -> None:
    outbox_id = await _ended_item(db, acme, work, receiver.url)
    words = await WebhookSender(db, allow_private=True).deliver(acme.id, outbox_id)
    assert words == "taken with 200"
    headers, body = receiver.taken[0]
    lower = {name.lower(): value for name, value in headers.items()}
    assert lower["webhook-id"] == str(outbox_id)
    payload = Webhook(SECRET).verify(body, lower)
    assert payload["type"] == "work_item.cancelled"
    assert json.loads(body)["data"]["reason"] == "not needed"
    async with db.session_for(control(acme.id)) as session:
        kinds = (await session.exec(select(AuditEventRow.kind))).all()
    assert "webhook.delivered" in kinds


async def test_a_receiver_that_fails_is_asked_again_later(
    db: Database, acme: Company, work: Work, receiver: Receiver
) -> None:
    receiver.status = 503
    outbox_id = await _ended_item(db, acme, work, receiver.url)
    sender = WebhookSender(db, allow_private=True)
    with pytest.raises(DependencyAway, match="503"):
        await sender.deliver(acme.id, outbox_id)
    receiver.status = 204
    assert await sender.deliver(acme.id, outbox_id) == "taken with 204"


async def test_a_redirect_is_not_followed(db: Database, acme: Company, work: Work, receiver: Receiver) -> None:
    receiver.status = 307
    outbox_id = await _ended_item(db, acme, work, receiver.url)
    with pytest.raises(DependencyAway, match="307"):
        await WebhookSender(db, allow_private=True).deliver(acme.id, outbox_id)


async def test_nothing_leaves_for_a_private_address(
    db: Database, acme: Company, work: Work, receiver: Receiver
) -> None:
    outbox_id = await _ended_item(db, acme, work, receiver.url)
    words = await WebhookSender(db).deliver(acme.id, outbox_id)
    assert "https" in words
    assert receiver.taken == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "https://user:word@example.com/",
        "ftp://example.com/",
        "https://127.0.0.1/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[fe80::1]/",
        "not a url",
    ],
)
def test_what_a_webhook_may_not_name(url: str) -> None:
    with pytest.raises(InvalidInput):
        check_url(url, allow_private=False)


async def test_a_name_that_resolves_to_us_is_not_reached(
    db: Database, acme: Company, work: Work, receiver: Receiver
) -> None:
    outbox_id = await _ended_item(db, acme, work, receiver.url.replace("http://127.0.0.1", "https://localhost"))
    with pytest.raises(OSError, match="no public address"):
        await PublicResolver().resolve("localhost")
    with pytest.raises(DependencyAway, match="not reached"):
        await WebhookSender(db).deliver(acme.id, outbox_id)
    assert receiver.taken == []
