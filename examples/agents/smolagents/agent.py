"""Counts stock and orders what is missing, with `smolagents`: streamed tool calls, one question."""

from __future__ import annotations

import json
import os

from permission import request_action
from smolagents import OpenAIModel, ToolCallingAgent, tool

STOCK = {"paper": 12, "toner": 0, "pens": 40, "folders": 3, "staples": 7}
PARAMETERS = json.loads(os.environ.get("AWGP_PARAMETERS") or "{}")
TASK = PARAMETERS.get("task") or "Count paper, toner, pens, folders and staples, and order what has run out."


@tool
def count(item: str) -> int:
    """How many pieces of an item are in stock.

    Args:
        item: Its name.
    """
    print(f"tool count {item}", flush=True)
    return STOCK.get(item, 0)


@tool
def order(item: str) -> str:
    """Orders an item, if that is permitted.

    Args:
        item: Its name.
    """
    answer = request_action("purchase.order", item, f"{item} has run out", f"order-{item}")
    print(f"tool order {item}\norder {item}: {answer['status']} ({answer['reason']})", flush=True)
    return json.dumps(answer)


def main() -> None:
    """Works through the task, each step streamed; what is refused is left, and said."""
    model = OpenAIModel(model_id=PARAMETERS.get("model") or "awgp/scripted")
    agent = ToolCallingAgent(tools=[count, order], model=model, stream_outputs=True, verbosity_level=0)
    pieces = 0
    last = ""
    for event in agent.run(TASK, stream=True):
        pieces += type(event).__name__ == "ChatMessageStreamDelta"
        last = str(getattr(event, "output", "") or last)
    print(f"{last}\nstreamed {pieces} pieces", flush=True)


if __name__ == "__main__":
    main()
