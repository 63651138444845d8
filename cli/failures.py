"""How a command fails: words for people, a command that mends it, and an exit code for scripts."""

from __future__ import annotations

from typing import Any, ClassVar


class CommandError(Exception):
    """The command cannot go on.

    Attributes:
        mend: The command that mends it, where there is one.
        code: Exit code, one of the constants below.
    """

    REFUSED: ClassVar[int] = 1
    """The API said no."""
    USAGE: ClassVar[int] = 2
    NOT_SUCCEEDED: ClassVar[int] = 3
    """The work item ended, and not well."""
    AWAY: ClassVar[int] = 4
    """The API, or what it stands on, does not answer."""
    TOKEN: ClassVar[int] = 5
    """There is no token, or it does not hold."""

    def __init__(self, words: str, *, detail: str = "", mend: str = "", code: int = REFUSED) -> None:
        super().__init__(words)
        self.words = words
        self.detail = detail
        self.mend = mend
        self.code = code


def from_problem(status: int, body: dict[str, Any]) -> CommandError:
    """The failure behind a problem document."""
    title = str(body.get("title") or f"HTTP {status}")
    errors = body.get("errors")
    lines = [str(body.get("detail") or "")]
    if isinstance(errors, list) and len(errors) > 1:  # pyright: ignore[reportUnknownArgumentType] - narrowed below
        lines += [f"  {fault.get('where')}: {fault.get('what')}" for fault in errors if isinstance(fault, dict)]  # pyright: ignore[reportUnknownVariableType]
    detail = "\n".join(line for line in lines if line)
    if status == 401:
        return CommandError(title, detail=detail, mend="awgp token --user <user>", code=CommandError.TOKEN)
    if status >= 500:
        return CommandError(title, detail=detail, mend="awgp doctor", code=CommandError.AWAY)
    return CommandError(title, detail=detail)
