"""Watching a work item: its live timeline and its run's output as they come, until it is final."""

from __future__ import annotations

import asyncio
import base64
import codecs
from collections.abc import Callable
from typing import Any

from cli import live, render
from cli.client import Api
from cli.failures import CommandError

POLL_SECONDS = 0.7


async def watch(api: Api, item_id: str, *, logs: bool = True) -> dict[str, Any]:
    """Print what happens until the item is final; answers the item. Survives restarts of the API."""
    output = asyncio.create_task(_follow_logs(api, item_id)) if logs else None
    try:
        # What the run says is printed whole, from its log; the timeline has only the beginning of each piece.
        await follow(api, item_id, lambda event: None if event["kind"] == "output" else live.event(event))
        if output is not None:
            await asyncio.wait({output}, timeout=10)
        return await api.get(f"/v1/work-items/{item_id}")
    finally:
        if output is not None:
            output.cancel()
            await asyncio.gather(output, return_exceptions=True)


async def follow(api: Api, item_id: str, show: Callable[[dict[str, Any]], None], after: int = 0) -> None:
    """Show the events beyond `after` as they come, each once, until the item is final."""
    while True:
        try:
            async for name, event_id, event in api.events(f"/v1/work-items/{item_id}/events", str(after)):
                if name == "end":
                    return
                show(event)
                after = int(event_id)
        except CommandError as failure:
            if failure.code != CommandError.AWAY:
                raise
        await asyncio.sleep(POLL_SECONDS)


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
