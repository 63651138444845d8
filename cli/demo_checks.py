"""What the demo's runs share: saying that something held, finding the question, the requester's own yes."""

from __future__ import annotations

import asyncio
from typing import Any

from rich.console import Console

from cli.client import Api
from cli.failures import CommandError

PATIENCE_SECONDS = 300
"""For one whole job; on two loaded cores it takes some seconds."""

console = Console(highlight=False)
Json = dict[str, Any]


def expect(held: bool, what: str) -> None:
    """Say that something held; otherwise the demo has failed.

    Raises:
        CommandError: It did not hold.
    """
    if not held:
        raise CommandError(f"The demo did not hold: {what}", code=CommandError.NOT_SUCCEEDED)
    console.print(f"  [green]✓[/] {what}")


async def open_approval(approver: Api, item_id: str) -> Json:
    """Wait until the item's approval is on the approver's list."""
    while True:
        page = await approver.get("/v1/approvals")
        for approval in page["items"]:
            if approval["work_item_id"] == item_id:
                return approval
        await asyncio.sleep(0.3)


async def refuse_own(requester: Api, approval: Json) -> None:
    """The requester tries to approve the own item: it must be refused."""
    try:
        await requester.post(f"/v1/approvals/{approval['id']}/decision", {"verdict": "approve"})
    except CommandError as refusal:
        expect(refusal.code == CommandError.REFUSED, "the requester's own yes was refused")
    else:
        expect(False, "the requester's own yes was refused")
