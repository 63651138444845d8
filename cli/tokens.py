"""Tokens kept between commands: one file a user, mode 0600, and the name of the one used last."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path
from typing import Any, cast

from cli.failures import CommandError
from cli.settings import CliSettings

_USER = re.compile(r"[A-Za-z0-9._@-]{1,128}")


def store(settings: CliSettings, user: str, token: str) -> Path:
    """Keep a token as the user's, and as the one used from now on."""
    folder = settings.tokens
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(folder / "current", user)
    return _write(_file(folder, user), token)


def find(settings: CliSettings, user: str | None) -> str:
    """The token to send: the named user's, that of the environment, or the one stored last.

    Raises:
        CommandError: There is none; it says how one is had.
    """
    if user is None and settings.token is not None:
        return settings.token.get_secret_value()
    name = user or _read(settings.tokens / "current")
    token = _read(_file(settings.tokens, name)) if name else None
    if token is None:
        who = name or "<user>"
        raise CommandError("You have no token.", mend=f"awgp token --user {who}", code=CommandError.TOKEN)
    return token


def claims_of(token: str) -> dict[str, Any]:
    """What a token says, unverified: for showing alone."""
    try:
        part = token.split(".")[1]
        return cast("dict[str, Any]", json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))
    except (IndexError, ValueError):
        return {}


def seconds_left(token: str) -> float:
    """For how long a token still holds; negative when it has expired."""
    expires = claims_of(token).get("exp")
    return float(expires) - time.time() if isinstance(expires, int | float) else 0.0


def _file(folder: Path, user: str) -> Path:
    if _USER.fullmatch(user) is None:
        raise CommandError(f"{user!r} is no user's name.", code=CommandError.USAGE)
    return folder / f"{user}.token"


def _write(path: Path, text: str) -> Path:
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text(text, encoding="utf-8")
    return partial.replace(path)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
