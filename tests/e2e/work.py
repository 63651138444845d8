"""What these tests ask for: the real job, and small assistants whose output proves how often they ran."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.client import User
from workers.stack.paths import CHECKOUT

EXAMPLE = CHECKOUT / "examples" / "reconcile"
IMAGE = "awgp/sandbox"
SMALL = {"memory_bytes": 128 * 1024 * 1024, "wall_seconds": 120}

# Each execution draws its own nonce, so output that was lost, doubled or begun anew shows. Seconds: AWGP_PARAMETERS.
SLEEPER = """
import json, os, time, uuid
seconds = json.loads(os.environ["AWGP_PARAMETERS"])["seconds"]
nonce = uuid.uuid4().hex
ticks = int(seconds * 4)
print("begin", nonce, ticks, flush=True)
for tick in range(ticks):
    print("tick", nonce, tick, flush=True)
    time.sleep(0.25)
print("end", nonce, flush=True)
"""

# Facts by which the default policy comes to each level.
LEVELS: dict[str, dict[str, Any]] = {
    "L0": {"kind": "read", "data_class": "public", "reversibility": "reversible", "external_effect": "none"},
    "L1": {"kind": "reconcile", "data_class": "internal", "reversibility": "reversible", "external_effect": "none"},
    "L3": {
        "kind": "prepare_payment",
        "data_class": "internal",
        "reversibility": "reversible",
        "external_effect": "none",
        "amount": "10944.90 USD",
    },
    "L4": {"kind": "sign_contract", "data_class": "public", "reversibility": "costly", "external_effect": "none"},
}


def item(assistant: str, level: str = "L0", title: str = "Test", **more: Any) -> dict[str, Any]:
    """A request for work of a level."""
    return {"assistant": assistant, "title": title, **LEVELS[level], **more}


def assistant(slug: str, code: str, *, restartable: bool = False, **more: Any) -> dict[str, Any]:
    """An assistant that is a Python program in the sandbox image."""
    return {
        "slug": slug,
        "name": slug,
        "image": IMAGE,
        "command": ["python3", "-c", code],
        "restartable": restartable,
        "limits": SMALL,
        **more,
    }


async def sleeper(owner: User, *, restartable: bool = False) -> str:
    """Slug of an assistant that prints for as many seconds as its item says."""
    slug = "sleeper-again" if restartable else "sleeper"
    return (await owner.assistant(assistant(slug, SLEEPER, restartable=restartable))).slug


async def reconciliation(requester: User, level: str = "L1", **parameters: Any) -> dict[str, Any]:
    """The real job on the example's two files."""
    inputs = [await requester.upload(EXAMPLE / name) for name in ("bank_statement.csv", "invoices.csv")]
    return item("reconciler", level, "Reconcile the first quarter", inputs=inputs, parameters=parameters)


def content(path: str) -> bytes:
    """Bytes of one of the example's files."""
    return Path(EXAMPLE / path).read_bytes()


@dataclass(frozen=True)
class Executions:
    """What a sleeper's output says of its executions.

    Attributes:
        nonces: One for each execution that said anything.
        whole: Every line of exactly one execution is there, once, in order.
    """

    nonces: tuple[str, ...]
    whole: bool

    @classmethod
    def of(cls, output: str) -> Executions:
        """Read a sleeper's output."""
        lines = output.splitlines()
        nonces = tuple(dict.fromkeys(re.findall(r"\b[0-9a-f]{32}\b", output)))
        begin = re.fullmatch(r"begin ([0-9a-f]{32}) (\d+)", lines[0]) if lines else None
        if begin is None:
            return cls(nonces, False)
        nonce, ticks = begin.group(1), int(begin.group(2))
        wanted = [lines[0], *(f"tick {nonce} {tick}" for tick in range(ticks)), f"end {nonce}"]
        return cls(nonces, lines == wanted)
