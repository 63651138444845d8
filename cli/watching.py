"""Watching a work item: its timeline and its run's output as they come, until it is final."""

from __future__ import annotations

import asyncio
import base64
import codecs
from typing import Any

from cli import render
from cli.client import Api
from cli.failures import CommandError

POLL_SECONDS = 0.7


async def watch(api: Api, item_id: str, *, logs: bool = True) -> dict[str, Any]:
    """Print what happens until the item is final; answers the item. Survives restarts of the API."""
    output = asyncio.create_task(_follow_logs(api, item_id)) if logs else None
    try:
        item = await _follow_timeline(api, item_id)
        if output is not None:
            await asyncio.wait({output}, timeout=10)
        return item
    finally:
        if output is not None:
            output.cancel()
            await asyncio.gather(output, return_exceptions=True)


async def _follow_timeline(api: Api, item_id: str) -> dict[str, Any]:
    after = 0
    while True:
        # The item first: an event that made it final is then certain to be on the page that is read next.
        item = await api.get(f"/v1/work-items/{item_id}")
        after = await _print_new(api, item_id, after)
        if item["status"] in render.FINAL:
            return item
        await asyncio.sleep(POLL_SECONDS)


async def _print_new(api: Api, item_id: str, after: int) -> int:
    while True:
        page = await api.get(f"/v1/work-items/{item_id}/timeline", after=after, limit=100)
        for event in page["items"]:
            render.event(event)
            after = event["seq"]
        if page["next_after"] is None:
            return after


async def _follow_logs(api: Api, item_id: str) -> None:
    last_id = ""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while True:
        try:
            async for name, event_id, data in api.events(f"/v1/work-items/{item_id}/logs", last_id):
                if name == "end":
                    return
                last_id = event_id or last_id
                raw = data["text"].encode() if "text" in data else base64.b64decode(data["data_b64"])
                render.log_text(decoder.decode(raw), str(data["stream"]))
        except CommandError as failure:
            if failure.code != CommandError.AWAY:
                raise
        await asyncio.sleep(1)
