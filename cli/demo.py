"""`make demo`: the main job, twice, and an agent with a model, over the public API alone.

An assistant reconciles a bank statement with invoices. Once as an L1 item, which runs by itself; once as an L3 item
that also prepares the payment file: it waits until an approver, who is not the requester, has approved it. Then an
agent on a model's client works, and asks in the middle of its run (`cli/demo_agent.py`). The exit status is 0 only if
all of it held.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from cli import render, tokens
from cli.client import Api
from cli.demo_agent import run_asking
from cli.demo_checks import PATIENCE_SECONDS, Json, console, expect, open_approval, refuse_own
from cli.failures import CommandError
from cli.operating import ask_issuer
from cli.settings import CHECKOUT, CliSettings, load
from cli.watching import watch

REQUESTER, APPROVER, AUDITOR, ADMIN = "alice", "anton", "anna", "armin"
EXAMPLE = CHECKOUT / "examples" / "reconcile"
INPUTS = ("bank_statement.csv", "invoices.csv")


async def session_of(settings: CliSettings, user: str) -> Api:
    """A session of a demo user, with a token kept for the commands that the demo shows."""
    tokens.store(settings, user, await ask_issuer(settings, user, None, 8 * 3600))
    return Api(settings, user)


async def submit(api: Api, body: Json) -> Json:
    """Bring the two files, look at the dry run, and ask for the work."""
    uploads = [(name, await api.upload(EXAMPLE / name)) for name in INPUTS]
    body = {**body, "inputs": [{"path": name, **uploaded} for name, uploaded in uploads]}
    dry = await api.post("/v1/work-items/dry-run", body)
    console.print(f"  dry run: {dry['level']} (score {dry['score']}), at most {dry['worst_case']}")
    return await api.create("/v1/work-items", body)


async def fetch_outputs(api: Api, item: Json, folder: Path) -> dict[str, Path]:
    """Download what came out of the run."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    listed = await api.get(f"/v1/work-items/{item['id']}/files")
    found: dict[str, Path] = {}
    for file in listed["items"]:
        if file["direction"] == "out":
            found[file["path"]] = folder / Path(file["path"]).name
            await api.download(f"/v1/work-items/{item['id']}/files/out/{file['path']}", found[file["path"]])
    return found


async def run_alone(requester: Api, results: Path) -> Json:
    """The L1 item: reconcile, nobody is asked."""
    console.rule("[bold]1. Reconcile (L1: runs by itself)")
    started = time.monotonic()
    body: Json = {
        "assistant": "reconciler",
        "title": "Reconcile the bank statement with supplier invoices",
        "kind": "reconcile",
        "data_class": "internal",
        "reversibility": "reversible",
        "external_effect": "none",
    }
    item = await submit(requester, body)
    async with asyncio.timeout(PATIENCE_SECONDS):
        item = await watch(requester, item["id"])
    seconds = time.monotonic() - started
    expect(item["risk_level"] == "L1", "its risk is L1, so nobody had to be asked")
    expect(item["status"] == "succeeded", f"it succeeded after {seconds:.1f} s, at a cost of {item['cost']}")
    files = await fetch_outputs(requester, item, results / "reconcile")
    expect({"report.md", "result.json"} <= files.keys(), f"report and result are in {results / 'reconcile'}")
    summary = json.loads(files["result.json"].read_text())
    render.line("result", json.dumps(summary["summary"]))
    return summary


async def run_approved(requester: Api, approver: Api, open_total: str, results: Path) -> None:
    """The L3 item: prepare the payment file; waits for somebody else."""
    console.rule("[bold]2. Prepare the payment file (L3: somebody else approves)")
    started = time.monotonic()
    body: Json = {
        "assistant": "reconciler",
        "title": "Prepare the payment file for the open invoices",
        "kind": "prepare_payment",
        "data_class": "internal",
        "reversibility": "reversible",
        "external_effect": "internal",
        "amount": f"{open_total} USD",
        "parameters": {"prepare_payments": True},
    }
    item = await submit(requester, body)
    watching = asyncio.create_task(watch(requester, item["id"]))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            approval = await open_approval(approver, item["id"])
            await refuse_own(requester, approval)
            decided = await approver.post(
                f"/v1/approvals/{approval['id']}/decision",
                {"verdict": "approve", "reason": "checked the open invoices", "digest": approval["subject_digest"]},
            )
            item = await watching
    finally:
        watching.cancel()
    expect(item["risk_level"] == "L3", "its risk is L3, so it waited for an approver")
    expect(decided["status"] == "approved", "the approver's yes, on the digest of exactly what runs, was enough")
    seconds = time.monotonic() - started
    expect(item["status"] == "succeeded", f"it succeeded after {seconds:.1f} s, at a cost of {item['cost']}")
    files = await fetch_outputs(requester, item, results / "payments")
    expect("payments.xml" in files, f"the payment file (pain.001) is in {results / 'payments'}")
    payment_file = json.loads(files["result.json"].read_text())["payment_file"]
    render.line("result", f"{payment_file['transactions']} transfers, {payment_file['control_sum']} EUR")


async def verify_trail(auditor: Api) -> None:
    """The auditor recomputes the hash chain."""
    console.rule("[bold]4. The audit trail")
    found = await auditor.get("/v1/audit/verify")
    expect(bool(found["whole"]), f"the chain of {found['events']} events holds, hash by hash")


async def demo() -> None:
    """The jobs, then the trail."""
    settings = load()
    results = settings.data / "demo"
    started = time.monotonic()
    async with (
        await session_of(settings, APPROVER) as approver,
        await session_of(settings, AUDITOR) as auditor,
        await session_of(settings, ADMIN) as admin,
        await session_of(settings, REQUESTER) as requester,
    ):
        summary = await run_alone(requester, results)
        await run_approved(requester, approver, summary["summary"]["open_total"], results)
        await run_asking(requester, approver, admin, auditor, results)
        await verify_trail(auditor)
    setup = os.environ.get("AWGP_SETUP_SECONDS")
    took = f"the three jobs took {time.monotonic() - started:.0f} s"
    console.print(f"\n  [bold]All of it held[/]: {f'set-up took {setup} s, ' if setup else ''}{took}.")


def main() -> int:
    """Run the demo; the exit status is 0 only if all of it held."""
    try:
        asyncio.run(demo())
    except CommandError as failure:
        console.print(f"[red]{failure.words}[/]\n{failure.detail}", style=None)
        if failure.mend:
            console.print(f"  {failure.mend}")
        return failure.code
    except TimeoutError:
        console.print(f"[red]The job did not end within {PATIENCE_SECONDS} s.[/] awgp doctor says what is wrong.")
        return CommandError.NOT_SUCCEEDED
    return 0


if __name__ == "__main__":
    sys.exit(main())
