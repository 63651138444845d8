"""Runs the attacks on the fence: all in one sandbox, each control in one with those that have the same defences off."""

from __future__ import annotations

import ctypes
import errno
import json
import socket
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from sandbox.spec import RunOutcome
from tests.escape.ground import Ground
from tests.escape.outside import TRUSTING_GUEST_SOCKET
from tests.escape.table import Attempt, Defence, Report, Verdict


async def attack(ground: Ground, names: Sequence[str], off: frozenset[Defence] = frozenset()) -> dict[str, Verdict]:
    """Carries these out in one sandbox without these defences; one that said nothing is broken."""
    spec = ground.spec(("python3", "/awgp/in/attacks/harness.py"))
    # A careless host is what a control may meet.
    sockets = ["guest.sock", "llm.sock", "awgp.sock", *(["canary.sock"] if Defence.OUTSIDE in off else [])]
    guest_socket = TRUSTING_GUEST_SOCKET if Defence.FRAMES in off else "guest.sock"
    where = {"sockets": sockets, "guest_socket": guest_socket}
    ended = await ground.run(spec, off, {"names.json": list(names), "where.json": where})
    said = verdicts(ended.output)
    why = f"the sandbox ended {ended.result.outcome}: {ended.result.detail}"
    if ended.result.outcome is not RunOutcome.SUCCEEDED:
        why += " " + ended.output[-300:].decode(errors="replace")
    return {name: said.get(name, Verdict("broken", why)) for name in names}


def verdicts(output: bytes) -> dict[str, Verdict]:
    """What the attacks said, by name."""
    said: dict[str, Verdict] = {}
    for line in output.splitlines():
        if line.startswith(b'{"name"'):
            answer = json.loads(line)
            said[answer["name"]] = Verdict(answer["state"], answer["said"])
    return said


async def reports(ground: Ground, attempts: Iterable[Attempt]) -> list[Report]:
    """Each attempt with its control."""
    attempts = list(attempts)
    verdicts = await attack(ground, [attempt.name for attempt in attempts])
    profiles: dict[frozenset[Defence], list[str]] = defaultdict(list)
    for attempt in attempts:
        if attempt.off and not _lacking(attempt):
            profiles[attempt.off].append(attempt.name)
    controls: dict[str, Verdict] = {}
    for off, names in profiles.items():
        controls |= await attack(ground, names, off)
    return [
        Report(attempt, verdicts[attempt.name], controls.get(attempt.name), attempt.no_control or _lacking(attempt))
        for attempt in attempts
    ]


def _lacking(attempt: Attempt) -> str:
    if not attempt.needs or _has(attempt.needs):
        return ""
    return f"this host has no {attempt.needs}"


def _has(needs: str) -> bool:
    if needs.startswith("family "):
        try:
            socket.socket(int(needs.split()[1]), socket.SOCK_SEQPACKET).close()
        except OSError as error:
            return error.errno != errno.EAFNOSUPPORT
        return True
    libc = ctypes.CDLL(None, use_errno=True)
    if needs.startswith("call "):
        return libc.syscall(ctypes.c_long(int(needs.split()[1])), 0, 0, 0) >= 0 or ctypes.get_errno() != errno.ENOSYS
    if needs == "x32":
        return libc.syscall(ctypes.c_long(0x40000000 | 39)) > 0  # getpid
    return Path(needs).exists()
