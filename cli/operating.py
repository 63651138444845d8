"""`awgp halt, lift, halts, audit verify, token, whoami`: operating an installation."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any, cast

import aiohttp
import typer

from cli import render, tokens
from cli.client import Api
from cli.failures import CommandError, from_problem
from cli.options import JsonOut, User, run, with_api
from cli.settings import CliSettings, load

Scope = Annotated[str, typer.Argument(help="everything, tenant or assistant.")]
Tenant = Annotated[str | None, typer.Option(help="Slug or id of the company; left out: your own.")]
AssistantName = Annotated[str | None, typer.Option("--assistant", "-a", help="Slug or id, for the scope assistant.")]
Why = Annotated[str, typer.Option("--reason", "-r", help="Why.")]

audit_app = typer.Typer(help="The audit trail.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (halt, lift, halts, token, whoami):
        app.command()(command)
    app.add_typer(audit_app, name="audit")


def halt(
    scope: Scope,
    tenant: Tenant = None,
    assistant: AssistantName = None,
    hold: Annotated[bool, typer.Option("--hold", help="Let what runs go on; nothing new starts.")] = False,
    reason: Why = "",
    user: User = None,
) -> None:
    """Stop everything, a company or an assistant, now."""

    async def act(api: Api) -> None:
        body = await _target(api, scope, tenant, assistant) | {"mode": "hold" if hold else "kill", "reason": reason}
        state = await api.post("/v1/halts", body)
        render.console.print(f"[red]Halted[/]: {state['scope']} ({state['mode']}). Lift it with: awgp lift {scope}")

    run(with_api(act, user))


def lift(
    scope: Scope, tenant: Tenant = None, assistant: AssistantName = None, reason: Why = "", user: User = None
) -> None:
    """Lift a halt; what it held back goes on."""

    async def act(api: Api) -> None:
        body = await _target(api, scope, tenant, assistant) | {"reason": reason}
        state = await api.post("/v1/halts/lift", body)
        render.console.print(f"[green]Lifted[/]: {state['scope']}.")

    run(with_api(act, user))


def halts(user: User = None) -> None:
    """List halts in force."""

    async def act(api: Api) -> None:
        found = (await api.get("/v1/halts", active=True))["items"]
        for state in found:
            when = render.moment(state["changed_at"])
            render.console.print(
                f"[red]{state['scope']}[/] ({state['mode']}) by {render.safe(state['changed_by'])} [dim]{when}[/]"
            )
            render.line("why", render.safe(state["reason"]))
        if not found:
            render.console.print("Nothing is halted.")

    run(with_api(act, user))


@audit_app.command("verify")
def audit_verify(
    tenant: Tenant = None,
    user: User = None,
    as_json: JsonOut = False,
) -> None:
    """Recompute the trail's hash chain; exit 1 when it is broken."""

    async def act(api: Api) -> None:
        tenant_id = await _tenant_id(api, tenant) if tenant else None
        report = await api.get("/v1/audit/verify", tenant_id=tenant_id)
        if as_json:
            print(json.dumps(report))
        else:
            mark = "[green]whole[/]" if report["whole"] else "[red]BROKEN[/]"
            render.console.print(f"{mark} {render.safe(report['words'])}")
            render.line("head", f"{report['head_seq']} {report['head_hash']}")
        if not report["whole"]:
            raise typer.Exit(CommandError.REFUSED)

    run(with_api(act, user))


@audit_app.command("list")
def audit_list(
    kind: Annotated[str | None, typer.Option(help="A kind; with a trailing dot, all that start so.")] = None,
    tenant: Tenant = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many.")] = 20,
    user: User = None,
) -> None:
    """List events, the newest first."""

    async def act(api: Api) -> None:
        tenant_id = await _tenant_id(api, tenant) if tenant else None
        page = await api.get("/v1/audit", kind=kind, tenant_id=tenant_id, limit=limit)
        for event in page["items"]:
            render.console.print(
                f"[dim]{event['seq']} {render.moment(event['occurred_at'])}[/] {render.safe(event['summary'])}"
            )

    run(with_api(act, user))


@audit_app.command("export")
def audit_export(
    to: Annotated[Path, typer.Argument(help="File to write (JSON lines).")],
    tenant: Tenant = None,
    user: User = None,
) -> None:
    """Write the whole trail to a file that verifies without this installation."""

    async def act(api: Api) -> None:
        query = f"?tenant_id={await _tenant_id(api, tenant)}" if tenant else ""
        size = await api.download(f"/v1/audit/export{query}", to)
        render.console.print(f"{to} has {size} bytes.")

    run(with_api(act, user))


def token(
    user: Annotated[str, typer.Option("--user", "-u", help="A user of the seed file.")],
    acr: Annotated[str | None, typer.Option(help="Authentication class, e.g. 2 for a second factor.")] = None,
    lifetime: Annotated[int, typer.Option(help="Seconds.")] = 3600,
    show: Annotated[bool, typer.Option("--print", help="Print it instead of keeping it.")] = False,
) -> None:
    """Get a token of the development issuer, and use it from now on."""
    settings = load()

    async def act() -> None:
        given = await ask_issuer(settings, user, acr, lifetime)
        if show:
            print(given)
            return
        tokens.store(settings, user, given)
        tenant = ", ".join(str(group) for group in tokens.claims_of(given).get("groups", []))
        render.console.print(f"You are [bold]{render.safe(user)}[/] of {render.safe(tenant)} for {lifetime} s.")

    run(act())


def whoami(user: User = None, as_json: JsonOut = False) -> None:
    """Say who you are to the API."""

    async def act(api: Api) -> None:
        me = await api.get("/v1/me")
        if as_json:
            print(json.dumps(me))
            return
        render.line("name", f"[bold]{render.safe(me['display_name'])}[/] ({render.safe(me['username'])})")
        render.line("company", f"{render.safe(me['tenant'])} ({me['tenant_kind']})")
        render.line("roles", ", ".join(me["roles"]))
        render.line("signed in", f"acr {me['acr']}" if me["acr"] else "")
        kept = tokens.find(api.settings, user)
        render.line("token", f"holds for {max(0, round(tokens.seconds_left(kept) / 60))} min")

    run(with_api(act, user))


async def ask_issuer(settings: CliSettings, user: str, acr: str | None, lifetime: int) -> str:
    """A token of the development issuer.

    Raises:
        CommandError: It does not answer, or refuses.
    """
    password = await asyncio.to_thread(settings.issuer_password)
    if password is None:
        raise CommandError("The development issuer's password is not here.", mend="make up", code=CommandError.TOKEN)
    body: dict[str, Any] = {"user": user, "lifetime": lifetime} | ({"acr": acr} if acr else {})
    headers = {"Authorization": f"Bearer {password}"}
    url = f"{settings.dev_issuer_url}/token"
    try:
        timeout = aiohttp.ClientTimeout(total=10)
        async with (
            aiohttp.ClientSession(timeout=timeout) as client,
            client.post(url, json=body, headers=headers) as response,
        ):
            answer = cast("dict[str, Any]", await response.json(content_type=None))
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise CommandError(
            f"The development issuer at {settings.dev_issuer_url} does not answer.",
            mend="make up",
            code=CommandError.AWAY,
        ) from error
    if response.status != 200:
        raise from_problem(response.status, answer)
    return str(answer["access_token"])


async def _target(api: Api, scope: str, tenant: str | None, assistant: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {"scope": scope}
    if tenant is not None:
        body["tenant_id"] = await _tenant_id(api, tenant)
    if assistant is not None:
        found = await api.get(f"/v1/assistants/{assistant}")
        body |= {"assistant_id": found["id"], "tenant_id": found["tenant_id"]}
    return body


async def _tenant_id(api: Api, named: str) -> str:
    for tenant in (await api.get("/v1/tenants"))["items"]:
        if named in {tenant["id"], tenant["slug"]}:
            return str(tenant["id"])
    raise CommandError(f"There is no company {named!r} that you see.")
