"""`awgp submit, list, show, watch, events, costs, cancel, files`: work items."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import live, render
from cli.client import Api
from cli.failures import CommandError
from cli.options import ItemId, JsonOut, User, item_path, run, with_api
from cli.watching import follow as follow_events
from cli.watching import watch as watch_item


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (submit, list_items, show, watch, events, costs, cancel, files):
        name = "list" if command is list_items else command.__name__
        app.command(name)(command)


def submit(
    assistant: Annotated[str, typer.Option("--assistant", "-a", help="Slug or id of the assistant.")],
    title: Annotated[str, typer.Option("--title", "-t", help="What it is about, for people.")],
    kind: Annotated[str, typer.Option(help="Kind of action, e.g. reconcile, report, prepare_payment.")] = "analyse",
    data_class: Annotated[
        str, typer.Option(help="public, internal, confidential, personal or restricted.")
    ] = "internal",
    reversibility: Annotated[str | None, typer.Option(help="reversible, costly or irreversible (assumed).")] = None,
    effect: Annotated[str | None, typer.Option(help="Who notices: none, internal or external (assumed).")] = None,
    amount: Annotated[str | None, typer.Option(help="What the work moves, e.g. '1200.00 USD'.")] = None,
    tool: Annotated[list[str] | None, typer.Option(help="A tool that it needs; repeat for more.")] = None,
    file: Annotated[list[str] | None, typer.Option("--file", "-f", help="PATH or PATH=NAME; repeat for more.")] = None,
    param: Annotated[list[str] | None, typer.Option("--param", "-p", help="NAME=VALUE; VALUE as JSON or text.")] = None,
    wall_seconds: Annotated[int | None, typer.Option(help="Most seconds it may run.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key; the same one gives the same work item.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say risk and worst-case cost.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Watch until it is final; exit 3 unless it succeeded.")] = False,
    user: User = None,
    as_json: JsonOut = False,
) -> None:
    """Ask an assistant for a piece of work."""
    body: dict[str, Any] = {"assistant": assistant, "title": title, "kind": kind, "data_class": data_class}
    body |= {
        name: value
        for name, value in (
            ("reversibility", reversibility),
            ("external_effect", effect),
            ("amount", amount),
            ("tools", tool),
            ("parameters", dict(map(_parameter, param or []))),
            ("limits", {"wall_seconds": wall_seconds} if wall_seconds else None),
        )
        if value
    }

    async def act(api: Api) -> None:
        body["inputs"] = [await _input(api, given) for given in file or []]
        if dry_run:
            _show_dry_run(await api.post("/v1/work-items/dry-run", body), as_json=as_json)
            return
        item = await api.create("/v1/work-items", body, key)
        if as_json and not wait:
            print(json.dumps(item))
            return
        render.console.print(f"Work item [bold]{item['id']}[/] is {render.status(item['status'])}.")
        if wait:
            await _watch_to_the_end(api, item["id"])
        else:
            render.console.print(f"[dim]watch it:[/] awgp watch {item['id']}")

    run(with_api(act, user))


def list_items(
    status: Annotated[str | None, typer.Option(help="Only those in this status.")] = None,
    awaiting: Annotated[str | None, typer.Option(help="Only those that await approval, budget or action.")] = None,
    level: Annotated[str | None, typer.Option(help="Only those of this risk level, L0 to L5.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many.")] = 10,
    user: User = None,
    as_json: JsonOut = False,
) -> None:
    """List work items, the newest first."""

    async def act(api: Api) -> None:
        page = await api.get("/v1/work-items", status=status, awaiting=awaiting, level=level, limit=limit)
        if as_json:
            print(json.dumps(page))
            return
        for item in page["items"]:
            render.item_card(item)
        if not page["items"]:
            render.console.print("There are none.")

    run(with_api(act, user))


def show(item: ItemId, user: User = None, as_json: JsonOut = False) -> None:
    """Show a work item, its files and what happened to it."""

    async def act(api: Api) -> None:
        path = await item_path(api, item)
        whole = await api.get(path)
        if as_json:
            print(json.dumps(whole))
            return
        render.item_whole(whole)
        for file in (await api.get(f"{path}/files"))["items"]:
            render.line(f"file {file['direction']}", f"{render.safe(file['path'])} [dim]({file['size']} bytes)[/]")
        timeline = await api.get(f"{path}/timeline", limit=200)
        for event in timeline["items"]:
            render.event(event)

    run(with_api(act, user))


def watch(
    item: ItemId,
    logs: Annotated[bool, typer.Option("--logs/--no-logs", help="The run's output too.")] = True,
    user: User = None,
) -> None:
    """Follow a work item's timeline and output until it is final; exit 3 unless it succeeded."""

    async def act(api: Api) -> None:
        path = await item_path(api, item)
        await _watch_to_the_end(api, path.rsplit("/", 1)[-1], logs=logs)

    run(with_api(act, user))


def events(
    item: ItemId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the item is final.")] = False,
    after: Annotated[int, typer.Option(help="Only what comes after this seq.")] = 0,
    user: User = None,
    as_json: JsonOut = False,
) -> None:
    """Show a work item's live timeline: output, progress, model calls, actions, approvals, what it uses."""

    async def act(api: Api) -> None:
        path = await item_path(api, item)
        show: Callable[[dict[str, Any]], None] = (lambda one: print(json.dumps(one))) if as_json else live.event
        if follow:
            await follow_events(api, path.rsplit("/", 1)[-1], show, after)
            return
        seen: int | None = after
        while seen is not None:
            page = await api.get(f"{path}/events", after=seen, limit=200)
            for one in page["items"]:
                show(one)
            seen = page["next_after"]

    run(with_api(act, user))


def costs(item: ItemId, user: User = None, as_json: JsonOut = False) -> None:
    """Show what a work item has cost, call by call."""

    async def act(api: Api) -> None:
        path = await item_path(api, item)
        cursor: str | None = None
        while True:
            page = await api.get(f"{path}/costs", cursor=cursor, limit=200)
            for call in page["items"]:
                if as_json:
                    print(json.dumps(call))
                else:
                    live.event({"kind": "llm_call", "at": call["started_at"], "data": call})
            cursor = page["next_cursor"]
            if cursor is None:
                break
        if as_json:
            print(json.dumps(page["costs"]))
        else:
            render.costs(page["costs"])

    run(with_api(act, user))


def cancel(
    item: ItemId,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why.")] = "",
    user: User = None,
) -> None:
    """Ask that a work item ends, wherever it is."""

    async def act(api: Api) -> None:
        found = await api.post(f"{await item_path(api, item)}/cancel", {"reason": reason})
        render.console.print(f"Asked: it is {render.status(found['status'])}, and ends as soon as its run has.")

    run(with_api(act, user))


def files(
    item: ItemId,
    to: Annotated[Path | None, typer.Option("--to", help="Folder to write what came out to.")] = None,
    user: User = None,
) -> None:
    """List a work item's files; with --to, fetch those that came out."""

    async def act(api: Api) -> None:
        path = await item_path(api, item)
        for file in (await api.get(f"{path}/files"))["items"]:
            render.line(f"file {file['direction']}", f"{render.safe(file['path'])} [dim]({file['size']} bytes)[/]")
            if to is not None and file["direction"] == "out":
                target = (to / file["path"]).resolve()
                if not target.is_relative_to(to.resolve()):
                    raise CommandError(f"The file {file['path']!r} would leave {to}.")
                target.parent.mkdir(parents=True, exist_ok=True)
                await api.download(f"{path}/files/out/{file['path']}", target)

    run(with_api(act, user))


async def _watch_to_the_end(api: Api, item_id: str, *, logs: bool = True) -> None:
    ended = await watch_item(api, item_id, logs=logs)
    why = f": {render.safe(ended['reason'])}" if ended["reason"] else ""
    cost = f", cost {ended['cost']}" if ended["cost"] else ""
    if ended["costs"]["calls"]:
        cost += f" (sandbox {ended['costs']['sandbox']}, {ended['costs']['calls']} model calls {ended['costs']['llm']})"
    render.console.print(f"{render.status(ended['status'])}{why}{cost}")
    if ended["status"] != "succeeded":
        raise typer.Exit(CommandError.NOT_SUCCEEDED)


async def _input(api: Api, given: str) -> dict[str, Any]:
    place, _, name = given.partition("=")
    uploaded = await api.upload(Path(place))
    return {"path": name or Path(place).name, "sha256": uploaded["sha256"], "size": uploaded["size"]}


def _parameter(given: str) -> tuple[str, Any]:
    name, equals, value = given.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{given!r} is not NAME=VALUE", param_hint="--param")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _show_dry_run(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
        return
    render.line("risk", f"[bold]{found['level']}[/] (score {found['score']})")
    for factor in found["factors"]:
        render.console.print(f"{'':<11}[dim]{factor['points']:>3}[/] {render.safe(factor['words'])}")
    render.line("cost", f"at most {found['worst_case']}")
    render.line("decides", render.safe(found["who"]))
    render.line("policy", f"version {found['policy_version']}")
