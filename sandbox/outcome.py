"""Which way a run ended: a pure rule over what is known, so that each way is told apart."""

from __future__ import annotations

from sandbox.guest_frames import AgentExit
from sandbox.runner import SandboxExit
from sandbox.spec import RunOutcome

_KILLED = 137
_LEASE_OVER = 143
"""The guest's own exit code at the lease's end; an agent may choose the same."""
_COULD_NOT_START = (126, 127)

_DETAILS = {
    RunOutcome.TIMED_OUT: "ended after its wall time",
    RunOutcome.OUTPUT_LIMIT: "ended because it wrote more than its output limit",
    RunOutcome.CANCELLED: "cancelled",
    RunOutcome.HALTED: "ended by a halt",
    RunOutcome.SUSPENDED: "suspended: a new attempt may go on with what it saved",
    RunOutcome.LEASE_LOST: "ended because its lease was over",
}


def judge(
    stopped: RunOutcome | None,
    end: SandboxExit,
    agent: AgentExit | None,
    *,
    complete: bool = True,
    lease_over: bool = False,
    memory_full: bool = False,
) -> tuple[RunOutcome, str]:
    """Returns the outcome and a sentence on it.

    Args:
        stopped: Why we ended it, if we did: that goes before any exit code.
        end: The engine's word.
        agent: The guest's word, which only explains; it never turns a failure into a success.
        complete: Whether output and artifacts all arrived.
        memory_full: Whether the cgroup was seen at its memory limit.
        lease_over: Whether the lease is over by the runtime's own count: the guest's code alone proves nothing.
    """
    if stopped is not None:
        return stopped, _DETAILS.get(stopped, stopped.value)
    if end.gone or end.exit_code is None:
        return RunOutcome.RUNTIME_GONE, "the container engine no longer knows the sandbox"
    if end.exit_code == _LEASE_OVER and lease_over:
        return RunOutcome.LEASE_LOST, "ended by its guest: its lease was over and no runtime was there"
    if end.oom_flag:
        return RunOutcome.OUT_OF_MEMORY, "killed: over its memory limit"
    if end.exit_code == _KILLED and (agent is None or agent.exit_code != _KILLED or memory_full):
        # The flag is missing in up to a third of such kills under load; and the kernel may pick the agent's own
        # process, so that the guest lives to tell of it: a kill by its own hand looks the same, but for the memory.
        return RunOutcome.OUT_OF_MEMORY, "killed, and not by us: probably over its memory limit"
    if end.exit_code in _COULD_NOT_START and agent is not None and agent.detail:
        return RunOutcome.START_FAILED, "the command could not be started: " + agent.detail[:500]
    missing = "" if complete else "; the sandbox ended before all it had to say arrived"
    if end.exit_code == 0:
        return RunOutcome.SUCCEEDED, missing.removeprefix("; ")
    detail = f"exit code {end.exit_code}"
    if agent is not None and agent.signal:
        detail += f" (signal {agent.signal})"
    if agent is not None and agent.detail:
        detail += f": {agent.detail[:300]}"
    if end.error:
        detail += ": " + end.error[:300]
    return RunOutcome.FAILED_EXIT, detail + missing
