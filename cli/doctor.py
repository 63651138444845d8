"""`awgp doctor`: what is wrong with this installation, and the command that mends it."""

from __future__ import annotations

import shutil
import stat
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import aiohttp
import typer

from cli import render, tokens
from cli.client import Api
from cli.failures import CommandError
from cli.options import User, run
from cli.settings import CliSettings, load

_MENDS = {
    "postgres": "make up",
    "temporal": "make up",
    "redis": "make up",
    "blobs": "make up      # and look at the disk: df -h",
    "broker": "make up",
    "gateway": "make up",
    "runtime": "make up      # then: make status",
}


HEARD_WITHIN = timedelta(minutes=1)
"""A runtime is heard every 10 s."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        words: How it is.
        mend: The command that mends it; empty when there is nothing to mend.
    """

    name: str
    good: bool
    words: str
    mend: str = ""


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(doctor)


def doctor(user: User = None) -> None:
    """Say what is wrong with this installation and the command that mends it; exit 1 when something is."""
    settings = load()

    async def act() -> None:
        found = _about_here(settings) + await _about_there(settings) + await _about_me(settings, user)
        for finding in found:
            mark = "[green]ok[/]   " if finding.good else "[red]wrong[/]"
            render.console.print(f"{mark} [bold]{finding.name}[/] {render.safe(finding.words)}".rstrip())
            if finding.mend:
                render.console.print(f"      [dim]try:[/] {render.safe(finding.mend)}")
        wrong = [finding for finding in found if not finding.good]
        if wrong:
            render.console.print(f"{len(wrong)} of {len(found)} are wrong.")
            raise typer.Exit(1)
        render.console.print("Everything is as it should be.")

    run(act())


def _about_here(settings: CliSettings) -> list[Finding]:
    good = sys.version_info >= (3, 11)
    found = [Finding("python", good, sys.version.split()[0], "" if good else "make PYTHON=python3.11 up")]
    if not settings.data.is_dir():
        # Not wrong by itself: the API may be another machine's.
        return [*found, Finding("data folder", good=True, words=f"{settings.data} is not there; nothing embedded here")]
    free = shutil.disk_usage(settings.data).free // 2**20
    found.append(
        Finding(
            "disk", free > 500, f"{free} MiB free in {settings.data}", "" if free > 500 else f"df -h {settings.data}"
        )
    )
    secrets = settings.data / "secrets"
    if secrets.is_dir():
        loose = [path for path in secrets.rglob("*") if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077]
        words = f"{len(loose)} files can be read by others" if loose else "readable by their owner alone"
        found.append(Finding("secrets", not loose, words, f"chmod -R go-rwx {secrets}" if loose else ""))
    return found


async def _about_there(settings: CliSettings) -> list[Finding]:
    try:
        async with Api(settings, anonymous=True) as api:
            health = await api.get("/healthz")
            ready = await _readiness(settings)
    except CommandError as failure:
        return [Finding("api", good=False, words=failure.words, mend="make up")]
    here = _version()
    same = health["version"] in {here, "unknown"} or here == "unknown"
    words = f"version {health['version']}" + ("" if same else f", and this command is {here}")
    found = [Finding("api", same, words, "" if same else "make up")]
    for dependency in ready.get("dependencies", []):
        good = dependency["state"] == "ok"
        words = f"{dependency['state']} ({dependency['latency_ms']} ms) {dependency['words']}".rstrip()
        found.append(
            Finding(dependency["name"], good, words, "" if good else _MENDS.get(dependency["name"], "make up"))
        )
    return found


async def _readiness(settings: CliSettings) -> dict[str, Any]:
    """The API's own findings; a 503 carries them too."""
    url = settings.api_url + "/readyz"
    try:
        async with (
            aiohttp.ClientSession() as client,
            client.get(url, timeout=aiohttp.ClientTimeout(total=10)) as response,
        ):
            return await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise CommandError(f"{url} does not answer", mend="make up", code=CommandError.AWAY) from error


async def _about_me(settings: CliSettings, user: str | None) -> list[Finding]:
    mend = f"awgp token --user {user or '<user>'}"
    try:
        token = tokens.find(settings, user)
    except CommandError as failure:
        return [Finding("token", good=False, words=failure.words, mend=failure.mend)]
    if tokens.seconds_left(token) <= 0:
        name = tokens.claims_of(token).get("preferred_username", user or "<user>")
        return [Finding("token", good=False, words="has expired", mend=f"awgp token --user {name}")]
    try:
        async with Api(settings, user) as api:
            me = await api.get("/v1/me")
            found = [Finding("token", good=True, words=f"{me['username']} of {me['tenant']}")]
            return found + await _halts(api) + await _runtimes(api)
    except CommandError as failure:
        if failure.code == CommandError.AWAY:
            return []
        return [Finding("token", good=False, words=f"{failure.words}: {failure.detail}", mend=mend)]


async def _halts(api: Api) -> list[Finding]:
    try:
        active = (await api.get("/v1/halts", active=True))["items"]
    except CommandError:
        return []
    return [
        Finding(
            f"halt of {state['scope']}",
            good=False,
            words=state["reason"] or "in force",
            mend=f"awgp lift {state['scope']}",
        )
        for state in active
    ]


async def _runtimes(api: Api) -> list[Finding]:
    try:
        runtimes = (await api.get("/v1/runtimes"))["items"]
    except CommandError:
        return []  # an auditor or an admin sees them
    found: list[Finding] = []
    for runtime in (one for one in runtimes if one["enabled"]):
        heard = runtime["last_heard_at"]
        age = datetime.now(UTC) - datetime.fromisoformat(heard) if heard else None
        good = age is not None and age < HEARD_WITHIN
        words = f"heard {round(age.total_seconds())} s ago" if age is not None else "never heard"
        found.append(Finding(f"runtime {runtime['name']}", good, words, "" if good else _MENDS["runtime"]))
    return found


def _version() -> str:
    try:
        return version("awgp")
    except PackageNotFoundError:
        return "unknown"
