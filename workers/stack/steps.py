"""Steps of the set-up: said while they work, timed, and never ending without the command that mends them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


class SetupError(Exception):
    """A step could not be done.

    Attributes:
        what: What is wrong, in words.
        mend: The command that mends it.
    """

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.what = what
        self.mend = mend


def say(text: str) -> None:
    """Print a progress line at once."""
    print(text, flush=True)


@contextmanager
def step(title: str, quiet: bool = False) -> Generator[None]:
    """Say that a step begins, and how long it took when it is done."""
    started = time.monotonic()
    if not quiet:
        say(f"  … {title}")
    yield
    if not quiet:
        say(f"  ok {title} ({time.monotonic() - started:.1f} s)")


def run(
    command: Sequence[str | Path],
    mend: str,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 900,
) -> str:
    """Run a command of the set-up to its end and return what it printed.

    Args:
        command: Program and arguments.
        mend: What the user should do when it fails.
        env: Variables added to ours.
        cwd: Folder to run in.
        timeout: Seconds after which it is ended.

    Raises:
        SetupError: It failed, took too long or is not there; the message ends with the last of its output.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise SetupError(f"`{words[0]}` is not there", mend) from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"`{' '.join(words[:6])}` took more than {timeout:.0f} s", mend) from error
    if done.returncode != 0:
        output = (done.stdout + done.stderr)[-2000:]
        raise SetupError(f"`{' '.join(words[:8])}` ended with {done.returncode}\n{output}", mend)
    return done.stdout


def until(deadline: float, pause: float = 0.1) -> Iterator[float]:
    """Yield the seconds left, with a pause between, until a monotonic deadline."""
    while (left := deadline - time.monotonic()) > 0:
        yield left
        time.sleep(min(pause, max(left, 0)))


def fail(error: SetupError) -> int:
    """Print what is wrong and how it is mended; the exit status."""
    print(f"\nawgp stopped: {error.what}\n  mend it with:  {error.mend}\n", file=sys.stderr, flush=True)
    return 1
