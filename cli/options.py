"""What the commands share: their options, and the way in which one runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any

import typer

from cli import render
from cli.client import Api
from cli.failures import CommandError
from cli.settings import load

User = Annotated[str | None, typer.Option("--user", "-u", help="Whose stored token to send.")]
JsonOut = Annotated[bool, typer.Option("--json", help="Print the API's answer as JSON.")]
ItemId = Annotated[str, typer.Argument(help="Id of a work item, or 'last'.")]


def run(command: Coroutine[Any, Any, None]) -> None:
    """Run a command to its end; a failure is printed and becomes the exit code."""
    try:
        asyncio.run(command)
    except CommandError as failed:
        render.failure(failed)
        raise typer.Exit(failed.code) from failed
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def with_api(act: Callable[[Api], Awaitable[None]], user: str | None) -> None:
    """Act with a session of the API."""
    async with Api(load(), user) as api:
        await act(api)


async def item_path(api: Api, given: str) -> str:
    """The API's path of a work item that is named by its id, or as the `last` one."""
    if given == "last":
        newest = (await api.get("/v1/work-items", limit=1))["items"]
        if not newest:
            raise CommandError("There is no work item yet.")
        given = newest[0]["id"]
    return f"/v1/work-items/{given}"
