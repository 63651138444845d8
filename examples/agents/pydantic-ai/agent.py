"""Counts stock and orders what is missing, with `pydantic-ai`: tool calls, a stream, one question."""

from __future__ import annotations

import asyncio
import json
import os

from permission import request_action
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel

STOCK = {"paper": 12, "toner": 0, "pens": 40, "folders": 3, "staples": 7}
PARAMETERS = json.loads(os.environ.get("AWGP_PARAMETERS") or "{}")
TASK = PARAMETERS.get("task") or "Count paper, toner, pens, folders and staples, and order what has run out."

agent = Agent(OpenAIChatModel(PARAMETERS.get("model") or "awgp/scripted"))


@agent.tool_plain
def count(item: str) -> int:
    """How many pieces of an item are in stock."""
    print(f"tool count {item}", flush=True)
    return STOCK.get(item, 0)


@agent.tool_plain
def order(item: str) -> str:
    """Orders an item, if that is permitted."""
    answer = request_action("purchase.order", item, f"{item} has run out", f"order-{item}")
    print(f"tool order {item}\norder {item}: {answer['status']} ({answer['reason']})", flush=True)
    return json.dumps(answer)


async def main() -> None:
    """Works through the task; what is refused is left, and said."""
    worked = await agent.run(TASK)
    pieces = 0
    async with agent.run_stream("Sum it up.", message_history=worked.all_messages()) as answer:
        async for piece in answer.stream_text(delta=True, debounce_by=None):
            pieces += 1
            print(piece, end="", flush=True)
    print(f"\nstreamed {pieces} pieces", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
