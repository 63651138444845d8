"""`awgp prices`: what calls of models are held and charged at."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from cli import render
from cli.client import Api
from cli.options import JsonOut, User, run, with_api

prices_app = typer.Typer(help="Prices of models.", no_args_is_help=True)

_KINDS = {
    "input": "a million prompt tokens",
    "output": "a million completion tokens",
    "cached_input": "a million read from the cache",
    "cache_write": "a million written to it",
    "reasoning": "a million of reasoning",
    "image": "an image",
    "request": "a call",
}


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(prices_app, name="prices")


@prices_app.command("list")
def list_prices(
    containing: Annotated[str, typer.Argument(help="Models alone whose name contains this.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many.")] = 50,
    user: User = None,
    as_json: JsonOut = False,
) -> None:
    """List prices in force, by the models' names."""

    async def act(api: Api) -> None:
        page = await api.get("/v1/prices", model=containing, limit=limit)
        if as_json:
            print(json.dumps(page))
            return
        for card in page["items"]:
            render.console.print(
                f"{render.safe(card['model'])} [dim]in[/] {_short(card['input'])} [dim]out[/] {_short(card['output'])}"
            )
        if not page["items"]:
            render.console.print("No model of that name has a price, so none is let through.")
        elif page["next_cursor"]:
            render.console.print(f"[dim]… and more; the first {limit} are shown. Amounts: USD a million tokens.[/]")

    run(with_api(act, user))


@prices_app.command("show")
def show(
    model: Annotated[str, typer.Argument(help="As a request names it, such as openai/gpt-4o.")],
    user: User = None,
    as_json: JsonOut = False,
) -> None:
    """Show a model's prices, and those before."""

    async def act(api: Api) -> None:
        found = await api.get(f"/v1/prices/{model}")
        if as_json:
            print(json.dumps(found))
            return
        for card in found["items"]:
            _whole(card)

    run(with_api(act, user))


def _short(amount: str) -> str:
    return amount.removesuffix(" USD")


def _whole(card: dict[str, Any]) -> None:
    since = render.moment(card["effective_from"])
    render.console.print(f"[bold]{render.safe(card['model'])}[/] version {card['version']} [dim]from {since}[/]")
    for name, words in _KINDS.items():
        if card[f"{name}_nano"]:
            render.line(_short(card[name]), words)
    render.line("source", render.safe(card["source"]))
