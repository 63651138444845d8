"""`awgp actions, questions, answer, assistants keys`: what agents ask, and the keys of those that run elsewhere."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from cli import render
from cli.client import Api
from cli.options import ItemId, JsonOut, User, item_path, run, with_api

Assistant = Annotated[str, typer.Argument(help="Slug or id of an assistant of your company.")]

assistants_app = typer.Typer(help="Assistants.", no_args_is_help=True)
keys_app = typer.Typer(help="Keys of agents that run elsewhere.", no_args_is_help=True)
assistants_app.add_typer(keys_app, name="keys")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (actions, questions, answer):
        app.command()(command)
    app.add_typer(assistants_app, name="assistants")


def actions(
    item: Annotated[str | None, typer.Argument(help="Id of a work item, or 'last'; left out: of all.")] = None,
    status: Annotated[str | None, typer.Option(help="Only those in this status (of all).")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many (of all).")] = 20,
    user: User = None,
    as_json: JsonOut = False,
) -> None:
    """List what agents asked leave for, and what became of it."""

    async def act(api: Api) -> None:
        if item is not None:
            page = await api.get(f"{await item_path(api, item)}/actions")
        else:
            page = await api.get("/v1/actions", status=status, limit=limit)
        if as_json:
            print(json.dumps(page))
            return
        for action in page["items"]:
            render.action_card(action)
        if not page["items"]:
            render.console.print("There are none.")

    run(with_api(act, user))


def questions(item: ItemId, user: User = None, as_json: JsonOut = False) -> None:
    """List what a work item's agent has asked whoever asked for the work."""

    async def act(api: Api) -> None:
        page = await api.get(f"{await item_path(api, item)}/questions")
        if as_json:
            print(json.dumps(page))
            return
        for asked in page["items"]:
            _question(asked)
        if not page["items"]:
            render.console.print("It has asked nothing.")

    run(with_api(act, user))


def answer(
    item: ItemId,
    question: Annotated[str, typer.Argument(help="Id of the question, or 'last'.")],
    words: Annotated[str, typer.Argument(help="Your answer; one of the options where there are some.")],
    user: User = None,
) -> None:
    """Answer an agent's question. It gives no leave: for that the agent asks for an action."""

    async def act(api: Api) -> None:
        path = f"{await item_path(api, item)}/questions"
        named = question
        if named == "last":
            asked = (await api.get(path))["items"]
            named = asked[-1]["id"] if asked else named
        _question(await api.post(f"{path}/{named}/answer", {"answer": words}))

    run(with_api(act, user))


@keys_app.command("list")
def list_keys(assistant: Assistant, user: User = None, as_json: JsonOut = False) -> None:
    """List an assistant's keys, the newest first."""

    async def act(api: Api) -> None:
        page = await api.get(await _keys(api, assistant))
        if as_json:
            print(json.dumps(page))
            return
        for key in page["items"]:
            state = "[red]revoked[/]" if key["revoked_at"] else f"until {render.moment(key['expires_at'])}"
            render.line(f"{key['prefix']}…", f"{state} [dim]{key['id']}[/]")
        if not page["items"]:
            render.console.print("It has none.")

    run(with_api(act, user))


@keys_app.command("create")
def create_key(
    assistant: Assistant,
    days: Annotated[int, typer.Option(help="Days for which it holds; 0: until it is revoked.")] = 90,
    user: User = None,
    as_json: JsonOut = False,
) -> None:
    """Make a key for an agent that runs elsewhere; it is shown this once."""

    async def act(api: Api) -> None:
        made = await api.post(await _keys(api, assistant), {"expires_in_days": days or None})
        if as_json:
            print(json.dumps(made))
            return
        render.console.print(made["key"], highlight=False)
        render.console.print(f"[dim]Kept nowhere. Revoke it: awgp assistants keys revoke {assistant} {made['id']}[/]")

    run(with_api(act, user))


@keys_app.command("revoke")
def revoke_key(
    assistant: Assistant, key: Annotated[str, typer.Argument(help="Id of the key.")], user: User = None
) -> None:
    """Let a key open nothing any more."""

    async def act(api: Api) -> None:
        gone = await api.delete(f"{await _keys(api, assistant)}/{key}")
        render.console.print(f"Revoked: {gone['prefix']}…")

    run(with_api(act, user))


async def _keys(api: Api, assistant: str) -> str:
    found = await api.get(f"/v1/assistants/{assistant}")
    return f"/v1/assistants/{found['id']}/keys"


def _question(asked: dict[str, Any]) -> None:
    render.line("question", f"{render.safe(asked['words'])} [dim]{asked['id']}[/]")
    if asked["options"]:
        render.line("options", render.safe(", ".join(asked["options"])))
    said = f"{render.safe(asked['answer'])} [dim]({render.safe(asked['answered_by'])})[/]"
    render.line("answer", said if asked["answer"] is not None else "[yellow]none yet[/]")
