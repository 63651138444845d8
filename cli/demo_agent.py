"""The demo's third run: an agent on OpenAI's own client works with a model, and asks before it pays.

It has no network, no key and no credential. Its model calls go through the gateway, which meters them; what answers is
scripted unless the installation has a provider's key. The payment is entered at a bank's portal (a receiver on
loopback) by a connector outside of the sandbox, once somebody else has approved exactly that request.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from pathlib import Path
from typing import Any

from cli import live, render
from cli.client import Api
from cli.demo_checks import PATIENCE_SECONDS, Json, console, expect, open_approval, refuse_own
from cli.demo_receiver import Receiver, receiving
from cli.failures import CommandError
from cli.settings import CHECKOUT
from cli.watching import watch
from models.domain.scripted import SCRIPTED_MODEL

INVOICES = CHECKOUT / "examples" / "reconcile" / "invoices.csv"
ASSISTANT, CONNECTOR, SECRET = "clerk", "bank-portal", "bank-portal-token"
CALLS = 3
TASK = """You are the payables clerk. Look up the open invoices, have the one that is due first paid,
and then say in a sentence what was paid and under which reference."""
# What the scripted upstream answers, call by call; a real model is given the same task, and finds its own way.
SCRIPT: list[Json] = [
    {"tool": "due_invoices", "arguments": {"most": 3}},
    {"tool": "pay", "arguments": {"invoice_number": "BE-88120767", "reason": "it is open, and due first"}},
    {"text": "Invoice BE-88120767 of Beispiel Energie AG over 3377.90 EUR was entered for payment."},
]


async def run_asking(requester: Api, approver: Api, admin: Api, auditor: Api, results: Path) -> None:
    """Work with a model, ask, wait, be approved, have the effect performed; then look for what it cost."""
    console.rule("[bold]3. An agent with a model (asks before it pays)")
    async with receiving(secrets.token_urlsafe(32)) as receiver:
        await connect(admin, receiver)
        item = await requester.create("/v1/work-items", await asked(requester, results))
        console.print(f"  asked: {item['id']}, at most {item['worst_case']}")
        watching = asyncio.create_task(watch(requester, item["id"]))
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await decide(requester, approver, await approval_or_end(approver, item["id"], watching))
                item = await watching
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        expect(item["status"] == "succeeded", f"it succeeded, at a cost of {item['cost']}")
        await check_effect(requester, item, receiver)
    await check_costs(requester, item)
    await check_secrecy(requester, auditor, item, receiver.token, results)


async def connect(admin: Api, receiver: Receiver) -> None:
    """Put the portal's token into the secret store, and set up the connector that shows it there and nowhere else."""
    await admin.put(f"/v1/secrets/{SECRET}", {"value": receiver.token})
    config = {
        "base_url": receiver.url,
        "credential": {"secret": SECRET, "as": "bearer"},
        "idempotency_header": "Idempotency-Key",
        "allow_private": True,
        "methods": ["POST"],
        "path_prefixes": ["/payments"],
        "external_effect": "internal",
    }
    known = {one["name"]: one for one in (await admin.get("/v1/connectors"))["items"]}.get(CONNECTOR)
    if known is None:
        await admin.post("/v1/connectors", {"name": CONNECTOR, "kind": "http", "config": config})
    else:
        await admin.put(f"/v1/connectors/{CONNECTOR}", {"version": known["version"], "config": config})


async def asked(requester: Api, results: Path) -> Json:
    """The request: the invoices, what the first run found open, and the task with what the script is to say."""
    files = (INVOICES, results / "reconcile" / "result.json")
    script = f"```awgp-script\n{json.dumps(SCRIPT)}\n```"
    model = os.environ.get("AWGP_DEMO_MODEL", SCRIPTED_MODEL)
    return {
        "assistant": ASSISTANT,
        "title": "Pay the invoice that is due first",
        "kind": "reconcile",
        "data_class": "internal",
        "reversibility": "reversible",
        "external_effect": "none",
        "inputs": [{"path": file.name, **await requester.upload(file)} for file in files],
        "parameters": {"model": model, "task": f"{TASK}\n\n{script}" if model == SCRIPTED_MODEL else TASK},
    }


async def approval_or_end(approver: Api, item_id: str, watching: asyncio.Task[Json]) -> Json:
    """The question; or, when the item ends without one, why."""
    asking = asyncio.create_task(open_approval(approver, item_id))
    await asyncio.wait({asking, watching}, return_when=asyncio.FIRST_COMPLETED)
    if asking.done():
        return asking.result()
    asking.cancel()
    item = watching.result()
    raise CommandError(
        f"The demo did not hold: the agent asked nobody; its item is {item['status']}",
        detail=item["reason"],
        code=CommandError.NOT_SUCCEEDED,
    )


async def decide(requester: Api, approver: Api, approval: Json) -> None:
    """The requester may not, the approver does: on the digest of exactly this request."""
    expect(approval["level"] == "L3", f"the payment is L3, so the agent waits for {render.safe(approval['title'])}")
    await refuse_own(requester, approval)
    decided = await approver.post(
        f"/v1/approvals/{approval['id']}/decision",
        {"verdict": "approve", "reason": "it is due", "digest": approval["subject_digest"]},
    )
    expect(decided["status"] == "approved", "the approver's yes, on the digest of exactly this request, was enough")


async def check_effect(requester: Api, item: Json, receiver: Receiver) -> None:
    """The portal was asked once, by one who showed the token, under the action's own key."""
    actions = (await requester.get(f"/v1/work-items/{item['id']}/actions"))["items"]
    expect([action["status"] for action in actions] == ["performed"], "the agent's one action was performed")
    entered = receiver.entered.get(actions[0]["id"], {})
    once = receiver.requests == len(receiver.entered) == 1 and not receiver.strangers
    expect(once and entered.get("invoice") == "BE-88120767", "the portal received that payment, exactly once")
    render.line("result", json.dumps(entered, ensure_ascii=False))


async def check_costs(requester: Api, item: Json) -> None:
    """The timeline shows each call: its model, its tokens, its cost; and the item's cost is that and the sandbox's."""
    calls = [one["data"] for one in await events(requester, item) if one["kind"] == "llm_call"]
    named = all(call["model"] and live.tokens(call["tokens"]) and int(call["amount_nano"]) > 0 for call in calls)
    many = len(calls) == CALLS if calls and calls[0]["model"] == SCRIPTED_MODEL else len(calls) > 1
    expect(many and named, f"its timeline shows {len(calls)} model calls, each with model, tokens and cost")
    costs = (await requester.get(f"/v1/work-items/{item['id']}"))["costs"]
    whole = costs["sandbox_nano"] + costs["llm_nano"] == item["cost_nano"]
    words = f"it cost {item['cost']}: {costs['llm']} for models, {costs['sandbox']} for the sandbox"
    expect(whole and item["cost_nano"] > costs["sandbox_nano"] > 0, words)


async def check_secrecy(requester: Api, auditor: Api, item: Json, token: str, results: Path) -> None:
    """The portal's token is nowhere but at the portal: not in the timeline, the log, the trail."""
    path = f"/v1/work-items/{item['id']}"
    said = [json.dumps(one) for one in await events(requester, item)]
    async for _, _, data in requester.events(f"{path}/logs", follow=False):
        said.append(json.dumps(data))
    trail = results / "audit.jsonl"
    await asyncio.to_thread(results.mkdir, parents=True, exist_ok=True)
    size = await auditor.download("/v1/audit/export", trail)
    said.append(await asyncio.to_thread(trail.read_text))
    looked = f"{len(said) - 1} events and lines of output, and {size} bytes of the audit trail"
    expect(len(said) > CALLS and not any(token in one for one in said), f"the portal's token is in none of {looked}")


async def events(api: Api, item: Json) -> list[Json]:
    """The item's whole timeline."""
    found: list[Json] = []
    after: int | None = 0
    while after is not None:
        page: dict[str, Any] = await api.get(f"/v1/work-items/{item['id']}/events", after=after, limit=200)
        found += page["items"]
        after = page["next_after"]
    return found
