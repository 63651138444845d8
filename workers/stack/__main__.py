"""`python -m workers.stack setup|up|down|reset|status|demo`.

For the Makefile: `prepare` (what tests need, nothing running), `cache` (prints the cache folder), `check-guest`, `env`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from workers.stack import gvisor, lifecycle, report
from workers.stack.paths import CHECKOUT
from workers.stack.stack import Stack
from workers.stack.steps import SetupError, fail, say

COMMANDS = ("setup", "up", "down", "reset", "status", "demo", "prepare", "cache", "check-guest", "env")


def main() -> int:
    """Run one command; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m workers.stack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS)
    command = parser.parse_args().command
    started = time.monotonic()
    try:
        stack = Stack(Path(os.environ.get("AWGP_DATA") or CHECKOUT / ".awgp"))
        status = _run(command, stack)
    except SetupError as error:
        return fail(error)
    if command in ("setup", "up", "demo"):
        say(f"\n  {command} took {time.monotonic() - started:.0f} s")
    return status


def _run(command: str, stack: Stack) -> int:
    match command:
        case "setup":
            lifecycle.setup(stack)
        case "up":
            lifecycle.up(stack)
            say(f"\n{report.table(stack)}\n{report.next_steps(stack)}")
        case "demo":
            return _demo(stack)
        case "down":
            lifecycle.down(stack)
        case "reset":
            return _reset(stack)
        case "prepare":
            with stack.locked():
                lifecycle.prepare(stack)
        case "cache":
            print(stack.paths.cache)
        case "check-guest":
            gvisor.check_guest(stack.paths)
        case "env":
            for name, value in sorted(stack.environment("cli").items()):
                print(f"{name}={value}")
        case _:
            say(report.table(stack))
            return 0 if stack.supervision.pid() is not None else 3
    return 0


def _demo(stack: Stack) -> int:
    started = time.monotonic()
    lifecycle.up(stack)
    say(f"\n{report.table(stack)}")
    variables = {**os.environ, **stack.environment("cli"), "AWGP_SETUP_SECONDS": f"{time.monotonic() - started:.0f}"}
    done = subprocess.run([sys.executable, "-m", "cli.demo"], env=variables, cwd=CHECKOUT, check=False)
    say(report.next_steps(stack))
    return done.returncode


def _reset(stack: Stack) -> int:
    if os.environ.get("YES") != "1":
        question = f"Forget everything in {stack.paths.data}: databases, secrets, audit trail? [yes/no] "
        if not sys.stdin.isatty() or input(question).strip().lower() != "yes":
            say("nothing was forgotten (answer yes, or YES=1 make reset)")
            return 1
    lifecycle.down(stack)
    stack.forget()
    say(f"  {stack.paths.data} is gone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
