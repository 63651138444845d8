import pytest

from sandbox.guest_frames import AgentExit
from sandbox.outcome import judge
from sandbox.runner import SandboxExit
from sandbox.spec import RunOutcome

O = RunOutcome  # noqa: E741


@pytest.mark.parametrize(
    ("stopped", "end", "agent", "outcome"),
    [
        (None, SandboxExit(0), AgentExit(exit_code=0), O.SUCCEEDED),
        (None, SandboxExit(3), AgentExit(exit_code=3), O.FAILED_EXIT),
        # The agent's word never turns a failure into a success.
        (None, SandboxExit(1), AgentExit(exit_code=0), O.FAILED_EXIT),
        (None, SandboxExit(137, oom_flag=True), None, O.OUT_OF_MEMORY),
        (None, SandboxExit(137), None, O.OUT_OF_MEMORY),
        (None, SandboxExit(137), AgentExit(exit_code=137, signal=9), O.FAILED_EXIT),
        (None, SandboxExit(127), AgentExit(exit_code=127, detail="no such file"), O.START_FAILED),
        (None, SandboxExit(127), AgentExit(exit_code=127), O.FAILED_EXIT),
        (None, SandboxExit(None, gone=True), None, O.RUNTIME_GONE),
        (O.CANCELLED, SandboxExit(0), AgentExit(exit_code=0), O.CANCELLED),
        (O.HALTED, SandboxExit(137), None, O.HALTED),
        (O.LEASE_LOST, SandboxExit(137, oom_flag=True), None, O.LEASE_LOST),
        (O.TIMED_OUT, SandboxExit(143), None, O.TIMED_OUT),
        (O.OUTPUT_LIMIT, SandboxExit(None, gone=True), None, O.OUTPUT_LIMIT),
    ],
)
def test_each_way_to_end_is_told_apart(
    stopped: RunOutcome | None, end: SandboxExit, agent: AgentExit | None, outcome: RunOutcome
) -> None:
    assert judge(stopped, end, agent)[0] is outcome


def test_what_did_not_arrive_is_said() -> None:
    assert "arrived" in judge(None, SandboxExit(0), None, complete=False)[1]


def test_the_guests_code_for_a_lost_lease_counts_only_when_our_own_count_is_over_too() -> None:
    assert judge(None, SandboxExit(143), None, lease_over=True)[0] is O.LEASE_LOST
    # Any agent may end with 143, and may not choose to be placed again by it.
    word = AgentExit(exit_code=143, detail="lease over")
    outcome, detail = judge(None, SandboxExit(143), word)
    assert outcome is O.FAILED_EXIT
    assert "lease over" in detail
    assert judge(None, SandboxExit(0), None, lease_over=True)[0] is O.SUCCEEDED


def test_a_kill_of_the_agent_alone_is_put_down_to_memory_where_that_was_full() -> None:
    end, word = SandboxExit(137), AgentExit(exit_code=137, signal=9)
    assert judge(None, end, word)[0] is O.FAILED_EXIT
    assert judge(None, end, word, memory_full=True)[0] is O.OUT_OF_MEMORY
    assert judge(None, SandboxExit(1), AgentExit(exit_code=1), memory_full=True)[0] is O.FAILED_EXIT
