"""Attacks that would disturb each other: a sandbox each, judged by how it ended and by what came out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sandbox.spec import Limits, RunOutcome
from tests.escape.fence import verdicts
from tests.escape.ground import Ended, Ground
from tests.escape.table import Attempt, Defence, Report, Verdict

MIB = 1 << 20
Judge = Callable[[Ended], str]
"""Says in words what the attacker got; empty when nothing."""


_USUAL = Limits(wall_seconds=60)


@dataclass(frozen=True)
class Lone:
    """One attack with a sandbox of its own.

    Attributes:
        limits: It runs within; ``raised``: its control does.
        allowed: Of what it takes; it goes for twice as much.
        ends: Outcomes which say that it was stopped.
        alone: It is the agent itself, not a child of the harness.
        judge: Looks at what came of it; None: the attack says itself how it went.
        control_judge: Shows on the same run that the trap was live.
    """

    attempt: Attempt
    limits: Limits = _USUAL
    raised: Limits | None = None
    allowed: int = 0
    ends: frozenset[RunOutcome] = frozenset()
    alone: bool = False
    judge: Judge | None = None
    control_judge: Judge | None = None


async def report(ground: Ground, lone: Lone) -> Report:
    """Carries it out, then a good run beside it, then its control."""
    ended = await _carry_out(ground, lone, lone.limits, frozenset())
    verdict = _verdict(lone, ended)
    if verdict.state == "refused":
        unwell = await _unwell(ground)
        if unwell:
            verdict = Verdict("won", f"the runtime is unwell after it: {unwell}")
    control: Verdict | None = None
    if lone.control_judge is not None:
        live = lone.control_judge(ended)
        control = Verdict("won" if live else "refused", live or "the trap was not live")
    elif lone.attempt.off:
        raised = lone.raised or lone.limits
        control = _verdict(lone, await _carry_out(ground, lone, raised, lone.attempt.off))
    return Report(lone.attempt, verdict, control, lone.attempt.no_control)


async def _carry_out(ground: Ground, lone: Lone, limits: Limits, off: frozenset[Defence]) -> Ended:
    module, _, function = lone.attempt.name.partition(".")
    name = f"{_MODULES.get(module, module)}.{function}"
    command = ("python3", "/awgp/in/attacks/harness.py")
    if lone.alone:
        command = ("python3", f"/awgp/in/attacks/{_MODULES.get(module, module)}.py", function)
    where = {"allowed": lone.allowed, "seconds": 45}
    return await ground.run(ground.spec(command, limits), off, {"names.json": [name], "where.json": where})


_MODULES = {"exhaustion": "exhaust", "lies": "guest_socket"}


def _verdict(lone: Lone, ended: Ended) -> Verdict:
    outcome = f"{ended.result.outcome}: {ended.result.detail[:120]}"
    said = list(verdicts(ended.output).values())
    if lone.judge is not None:
        won = lone.judge(ended)
        if not won and said and said[0].state == "broken":
            return Verdict("broken", f"the trap was not set: {said[0].said}")
        return Verdict("won", won) if won else Verdict("refused", outcome)
    if ended.result.outcome in lone.ends:
        return Verdict("refused", outcome)
    return said[0] if said else Verdict("broken", f"{outcome} {ended.output[-200:]!r}")


async def _unwell(ground: Ground) -> str:
    """A good run right after: empty when all is as ever."""
    spec = ground.spec(("sh", "-c", "echo well; mkdir -p /workspace/out; echo kept > /workspace/out/kept"))
    ended = await ground.run(spec)
    if ended.result.outcome is RunOutcome.SUCCEEDED and ended.output == b"well\n" and list(ended.artifacts) == ["kept"]:
        return ""
    return f"{ended.result.outcome}: {ended.result.detail} {ended.output!r} {sorted(ended.artifacts)}"
