"""What an attempt is: its name, what its success would look like, and the defences without which it succeeds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Defence(StrEnum):
    """One thing that a control can switch off; the rest of the fence stays as it is."""

    GVISOR = "gVisor's kernel"
    SECCOMP = "the list of system calls"
    NO_NETWORK = "no network"
    CAPABILITIES = "no capabilities"
    USER = "an ordinary user"
    NO_NEW_PRIVILEGES = "no new privileges"
    READ_ONLY_ROOT = "a read-only image"
    READ_ONLY_BINDS = "read-only mounts"
    NO_SOCKET_MAKING = "sockets may be used, not made"
    OWN_FOLDER = "a folder a run"
    NOTHING_ELSE = "nothing else is mounted"
    OWN_PROCESSES = "processes of its own"
    UNPRIVILEGED = "an unprivileged container"
    """Without it: the host's devices and a writable /sys."""
    OUTSIDE = "nothing of the host's is handed in"
    BRIDGE = "the bridge's list of routes and headers"
    FRAMES = "the host's reading of the guest's frames"
    NO_LINKS = "artifacts are collected without following"
    """Its control is a collector that follows, on the same traps."""
    ENGINE_DECIDES = "the engine's word goes before the guest's"
    """Its control is the guest's word, as it came."""
    WHOSE = "whose it is"
    """Its control is the same request by whom it belongs to."""
    QUIET_LOG = "a log that says nothing of malformed requests"
    LIMITS = "limits"
    """Without it: ten times as much."""


@dataclass(frozen=True)
class Attempt:
    """One named attack.

    Attributes:
        name: ``category.what``; for attacks from inside also the module and function that carry it out.
        won: What its success would look like.
        off: The defences that the control switches off, together. They suffice; a smaller set may, too.
        no_control: Why no control can be had, in words; then ``off`` is empty.
        needs: A path, ``family n``, ``call n`` or ``x32``: without it on the host a control has nothing to reach.
    """

    name: str
    won: str
    off: frozenset[Defence] = frozenset()
    no_control: str = ""
    needs: str = ""

    @property
    def category(self) -> str:
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Verdict:
    """How one attack went.

    Attributes:
        state: ``won``, ``refused``, or ``broken``: the attack itself failed and proves nothing.
    """

    state: str
    said: str


@dataclass(frozen=True)
class Report:
    """An attempt with its control.

    Attributes:
        control: None where none is to be had; ``why_none`` then says why.
    """

    attempt: Attempt
    verdict: Verdict
    control: Verdict | None
    why_none: str = ""

    @property
    def fault(self) -> str:
        """What is wrong; empty when the attack failed and its control succeeded."""
        if self.verdict.state != "refused":
            return f"{self.verdict.state}: {self.verdict.said}"
        if self.control is not None and self.control.state != "won":
            return f"its control did not succeed: {self.control.state}: {self.control.said}"
        if self.control is None and not self.why_none:
            return "no control, and no reason why"
        return ""
