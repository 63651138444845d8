"""`awgp approvals, approve, reject`: one human's answer."""

from __future__ import annotations

import json
from typing import Annotated, Any, cast

import typer

from cli import render
from cli.client import Api
from cli.failures import CommandError
from cli.options import JsonOut, User, run, with_api

Approval = Annotated[str, typer.Argument(help="Id of an approval, of its action or of its work item; or 'last'.")]
Digest = Annotated[str | None, typer.Option(help="What you were shown; refused if it is not what would run.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (approvals, approve, reject):
        app.command()(command)


def approvals(user: User = None, as_json: JsonOut = False) -> None:
    """List what you may decide, the newest first."""

    async def act(api: Api) -> None:
        page = await api.get("/v1/approvals", limit=50)
        if as_json:
            print(json.dumps(page))
            return
        for approval in page["items"]:
            render.approval_card(approval)
            render.console.print()
        if not page["items"]:
            render.console.print("Nothing waits for you.")

    run(with_api(act, user))


def approve(
    approval: Approval,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; some levels ask for one.")] = "",
    digest: Digest = None,
    parameters: Annotated[str | None, typer.Option(help="JSON: an action's parameters as you allow them.")] = None,
    effect: Annotated[str | None, typer.Option(help="JSON: an action's effect as you allow it.")] = None,
    user: User = None,
) -> None:
    """Approve a work item or an action; an action also otherwise than it was asked for."""
    edits = {
        name: _document(f"--{name}", text) for name, text in (("parameters", parameters), ("effect", effect)) if text
    }
    run(with_api(lambda api: _decide(api, approval, "approve", reason, digest, edits), user))


def reject(
    approval: Approval,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why.")] = "",
    digest: Digest = None,
    user: User = None,
) -> None:
    """Reject a work item or an action."""
    run(with_api(lambda api: _decide(api, approval, "reject", reason, digest), user))


def _document(option: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"is not JSON: {error}", param_hint=option) from error
    if not isinstance(found, dict):
        raise typer.BadParameter("is a JSON object", param_hint=option)
    return cast("dict[str, Any]", found)


async def _decide(
    api: Api, named: str, verdict: str, reason: str, digest: str | None, edits: dict[str, Any] | None = None
) -> None:
    found = await _find(api, named)
    render.approval_card(found)
    # The digest of what was just shown: a subject that changed in between is refused.
    body: dict[str, Any] = {
        "verdict": verdict,
        "reason": reason,
        "digest": digest or found["subject_digest"],
        "tenant_id": found["tenant_id"],
    }
    if edits:
        body["edits"] = edits
    stands = await api.post(f"/v1/approvals/{found['id']}/decision", body)
    why = f" ({render.safe(stands['reason'])})" if stands["reason"] else ""
    render.console.print(f"Your answer is recorded: the approval is {render.status(stands['status'])}{why}.")


async def _find(api: Api, named: str) -> dict[str, Any]:
    mine = (await api.get("/v1/approvals", limit=200))["items"]
    if named == "last":
        if not mine:
            raise CommandError("Nothing waits for you.")
        return mine[0]
    for approval in mine:
        if named in {approval["id"], approval["action_id"], approval["work_item_id"]}:
            return approval
    # Not one of mine: the API says why (already decided, one's own request, another company's).
    return await api.get(f"/v1/approvals/{named}")
