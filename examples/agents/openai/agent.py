"""Counts stock and orders what is missing, with the official `openai` client: tool calls, a stream, one question."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from openai import OpenAI
from permission import request_action

STOCK = {"paper": 12, "toner": 0, "pens": 40, "folders": 3, "staples": 7}
PARAMETERS = json.loads(os.environ.get("AWGP_PARAMETERS") or "{}")
TASK = PARAMETERS.get("task") or "Count paper, toner, pens, folders and staples, and order what has run out."
MODEL = PARAMETERS.get("model") or "awgp/scripted"
MOST_STEPS = 20

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "count",
            "description": "How many pieces of an item are in stock.",
            "parameters": {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]},
        },
    },
    {
        "type": "function",
        "function": {
            "name": "order",
            "description": "Orders an item, if that is permitted.",
            "parameters": {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]},
        },
    },
]


def use(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Runs a tool."""
    item = str(arguments["item"])
    print(f"tool {name} {item}", flush=True)
    if name == "count":
        return {"item": item, "pieces": STOCK.get(item, 0)}
    answer = request_action("purchase.order", item, f"{item} has run out", f"order-{item}")
    print(f"order {item}: {answer['status']} ({answer['reason']})", flush=True)
    return answer


def main() -> int:
    """Works through the task; what is refused is left, and said."""
    client = OpenAI()
    messages: list[Any] = [{"role": "user", "content": TASK}]
    for _ in range(MOST_STEPS):
        answer = client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)
        message = answer.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            break
        for call in message.tool_calls:
            found = use(call.function.name, json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(found)})
    messages.append({"role": "user", "content": "Sum it up."})
    pieces = 0
    for chunk in client.chat.completions.create(model=MODEL, messages=messages, stream=True):
        if chunk.choices and chunk.choices[0].delta.content:
            pieces += 1
            print(chunk.choices[0].delta.content, end="", flush=True)
    print(f"\nstreamed {pieces} pieces", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
