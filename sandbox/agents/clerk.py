"""A payables clerk on OpenAI's own client: an ordinary agent, with nothing in it that knows AWGP but one address.

It works through model calls with two tools. `due_invoices` reads ``invoices.csv`` in ``AWGP_INPUT_DIR``, and shows
those that are open by ``result.json`` beside it (the reconciler's, where there is one). `pay` moves nothing by itself:
it asks by ``AWGP_URL`` for leave to have a payment entered, waits for the people who decide (for days, if need be), and
tells the model what came of it. What the model says at last becomes ``report.md`` in ``AWGP_OUTPUT_DIR``. Its task and
its model stand in ``AWGP_PARAMETERS``; ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY`` are those that every sandbox has.
Exit 2: the input cannot be used; 3: the model came to no end.
"""

# The client is in the agent's image, not here.
# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import csv
import hashlib
import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

MOST_CALLS = 8
MOST_TOKENS = 800
REQUEST_SECONDS = 90
PAUSE_SECONDS = 2.0
CONNECTOR = "bank-portal"

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "due_invoices",
            "description": "The open supplier invoices that are due first.",
            "parameters": {
                "type": "object",
                "properties": {"most": {"type": "integer", "description": "How many."}},
                "required": ["most"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "pay",
            "description": "Have the payment of one invoice entered at the bank. People are asked first.",
            "parameters": {
                "type": "object",
                "properties": {"invoice_number": {"type": "string"}, "reason": {"type": "string"}},
                "required": ["invoice_number", "reason"],
            },
        },
    },
]


class InputError(Exception):
    """The input cannot be used."""


def say(words: str) -> None:
    """Print a line at once."""
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


def read_invoices() -> list[dict[str, str]]:
    """The open invoices, those that are due first at the head."""
    inputs = Path(os.environ.get("AWGP_INPUT_DIR", "."))
    try:
        with (inputs / "invoices.csv").open(encoding="utf-8-sig", newline="") as file:
            rows = sorted(csv.DictReader(file), key=lambda row: row["due_date"])
        if (inputs / "result.json").exists():
            known = json.loads((inputs / "result.json").read_text(encoding="utf-8"))
            numbers = {one["invoice"] for one in known["open_invoices"]}
            rows = [row for row in rows if row["invoice_number"] in numbers]
    except (OSError, KeyError, TypeError, ValueError) as problem:
        raise InputError(f"{inputs}: {problem!r}") from problem
    return rows


def ask(method: str, path: str, body: dict[str, Any] | None = None, key: str = "") -> tuple[int, dict[str, Any]]:
    """One request to ``AWGP_URL``; answers its status and document. What is away is asked again."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
    url = os.environ["AWGP_URL"] + path
    while True:
        request = urllib.request.Request(url, data=data, method=method, headers=headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as response:  # noqa: S310
                return response.status, json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as problem:
            if problem.code not in (429, 502, 503, 504):
                return problem.code, json.loads(problem.read() or b"{}")
        except OSError as problem:
            say(f"asking again: {problem}")
        time.sleep(PAUSE_SECONDS)


def progress(words: str, percent: int) -> None:
    """Say how far the work is, to whoever watches."""
    say(words)
    ask("POST", "/progress", {"words": words, "percent": percent})


def due_invoices(most: int = 3) -> object:
    """The tool of that name."""
    return read_invoices()[: max(1, min(int(most), 20))]


def pay(invoice_number: str, reason: str = "") -> object:
    """The tool of that name: ask for leave, wait for the answer, and say what came of it."""
    found = [row for row in read_invoices() if row["invoice_number"] == invoice_number]
    if not found:
        return {"error": f"there is no open invoice {invoice_number}"}
    invoice = found[0]
    order = {"invoice": invoice_number, "creditor": invoice["supplier"], "iban": invoice["supplier_iban"]}
    order |= {"amount": invoice["amount"], "currency": invoice["currency"]}
    # The same payment has the same key, also when the model asks twice, or another attempt of this run does.
    key = "pay-" + hashlib.sha256(json.dumps(order, sort_keys=True).encode()).hexdigest()[:32]
    wanted: dict[str, Any] = {
        "kind": "prepare_payment",
        "target": f"{invoice['supplier']}, {invoice['supplier_iban']}",
        "parameters": order,
        "effect": {"connector": CONNECTOR, "method": "POST", "path": "/payments", "json": order},
        "reason": reason,
        "data_class": "internal",
        "reversibility": "reversible",
        "external_effect": "internal",
        "mode": "wait",
    }
    progress(f"asking for leave to pay {invoice['amount']} {invoice['currency']} to {invoice['supplier']}", 60)
    status, answer = ask("POST", "/actions", wanted, key)
    while status == 202:
        say(f"waiting: {answer.get('status')}")
        status, answer = ask("GET", answer.get("wait_url") or f"/actions/{answer['id']}?wait=25")
    say(f"answered: {answer.get('status') or answer.get('title')} {answer.get('reason') or ''}".rstrip())
    said = {name: answer.get(name) for name in ("status", "reason", "parameters", "effect_result", "title", "detail")}
    return {name: value for name, value in said.items() if value}


def use(name: str, arguments: str) -> str:
    """Call a tool as the model asked; what is wrong with that is told to the model."""
    tools = {"due_invoices": due_invoices, "pay": pay}
    try:
        given = json.loads(arguments or "{}")
        return json.dumps(tools[name](**given), ensure_ascii=False)
    except (KeyError, TypeError, ValueError) as problem:
        return json.dumps({"error": f"{name}({arguments[:200]}): {problem!r}"})


def work(task: str, model: str) -> str:
    """Go through model calls until the model says its last word."""
    import openai

    client = openai.OpenAI(timeout=REQUEST_SECONDS)
    messages: list[Any] = [{"role": "user", "content": task}]
    for number in range(1, MOST_CALLS + 1):
        answer = client.chat.completions.create(model=model, messages=messages, tools=TOOLS, max_tokens=MOST_TOKENS)
        message = answer.choices[0].message
        used = answer.usage
        say(f"model call {number}: {used.total_tokens if used else '?'} tokens, {answer.choices[0].finish_reason}")
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            return message.content or ""
        for call in message.tool_calls:
            said = use(call.function.name, call.function.arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": said})
    raise SystemExit(3)


def main() -> int:
    """Do the task."""
    try:
        parameters = json.loads(os.environ.get("AWGP_PARAMETERS") or "{}")
        task, model = parameters["task"], parameters["model"]
        read_invoices()
    except (KeyError, TypeError, ValueError, InputError) as problem:
        sys.stderr.write(f"the input cannot be used: {problem}\n")
        return 2
    progress("reading what is due", 10)
    report = work(task, model)
    outputs = Path(os.environ.get("AWGP_OUTPUT_DIR", "."))
    outputs.mkdir(parents=True, exist_ok=True)
    (outputs / "report.md").write_text(report + "\n", encoding="utf-8")
    progress("wrote report.md", 100)
    return 0


if __name__ == "__main__":
    sys.exit(main())
