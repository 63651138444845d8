from itertools import pairwise

import pytest

from models.domain.work_item import FINAL, OPEN, WorkItemStatus
from models.rules.lifecycle import TRANSITIONS, may_move

S = WorkItemStatus


def test_nothing_follows_a_final_state():
    assert not any(may_move(final, to) for final in FINAL for to in S)


def test_every_open_state_can_be_ended_by_people_time_and_halts():
    for current in OPEN:
        assert all(may_move(current, to) for to in (S.REJECTED, S.EXPIRED, S.CANCELLED, S.HALTED))


def test_staying_is_no_move():
    assert not any(may_move(status, status) for status in S)


@pytest.mark.parametrize(
    "path",
    [
        "submitted assessing queued running succeeded",
        "submitted assessing awaiting_budget awaiting_approval queued running failed",
        "assessing awaiting_approval queued awaiting_budget queued running awaiting_action running succeeded",
        "running queued running",
    ],
)
def test_the_paths_of_the_design(path: str):
    states = [S(word) for word in path.split()]
    assert all(may_move(a, b) for a, b in pairwise(states))


@pytest.mark.parametrize(
    ("current", "to"),
    [
        (S.SUBMITTED, S.RUNNING),
        (S.SUBMITTED, S.QUEUED),
        (S.ASSESSING, S.RUNNING),
        (S.AWAITING_APPROVAL, S.RUNNING),
        (S.AWAITING_BUDGET, S.RUNNING),
        (S.QUEUED, S.SUCCEEDED),
        (S.RUNNING, S.AWAITING_APPROVAL),
    ],
)
def test_no_short_cut_to_running_or_its_end(current: WorkItemStatus, to: WorkItemStatus):
    assert not may_move(current, to)


def test_only_the_queue_and_a_waiting_action_lead_to_running():
    for to, sources in ((S.RUNNING, {S.QUEUED, S.AWAITING_ACTION}), (S.SUCCEEDED, {S.RUNNING, S.AWAITING_ACTION})):
        assert {status for status in S if may_move(status, to)} == sources
    assert set(TRANSITIONS) == set(S)
