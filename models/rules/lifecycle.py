"""Which status may follow which. The table is the whole rule."""

from models.domain.work_item import FINAL, WorkItemStatus

_S = WorkItemStatus

# From anywhere that is not final: a human's no, a deadline, a cancel, a halt.
_ALWAYS = frozenset({_S.REJECTED, _S.EXPIRED, _S.CANCELLED, _S.HALTED})

_NEXT: dict[WorkItemStatus, frozenset[WorkItemStatus]] = {
    _S.SUBMITTED: frozenset({_S.ASSESSING}),
    # Failed: an input that is gone, for instance. What cannot be assessed does not run.
    _S.ASSESSING: frozenset({_S.AWAITING_BUDGET, _S.AWAITING_APPROVAL, _S.QUEUED, _S.FAILED}),
    # To queued: L0–L1, or an approved item whose hold had to be taken again.
    _S.AWAITING_BUDGET: frozenset({_S.AWAITING_APPROVAL, _S.QUEUED}),
    _S.AWAITING_APPROVAL: frozenset({_S.QUEUED}),
    # Back to awaiting budget: the window of the hold has passed. Failed: no image, no start.
    _S.QUEUED: frozenset({_S.RUNNING, _S.AWAITING_BUDGET, _S.FAILED}),
    # Back to queued: the run is gone and its assistant may be restarted (a new attempt, a new warrant).
    _S.RUNNING: frozenset({_S.AWAITING_ACTION, _S.QUEUED, _S.SUCCEEDED, _S.FAILED}),
    # An agent may also end without waiting for the answer it asked for.
    _S.AWAITING_ACTION: frozenset({_S.RUNNING, _S.QUEUED, _S.SUCCEEDED, _S.FAILED}),
}

TRANSITIONS: dict[WorkItemStatus, frozenset[WorkItemStatus]] = {
    status: frozenset() if status in FINAL else _NEXT[status] | _ALWAYS for status in WorkItemStatus
}
"""INVARIANT: nothing follows a final status."""


def may_move(current: WorkItemStatus, to: WorkItemStatus) -> bool:
    """Whether an item may go from one status to the other. Staying is no move."""
    return to in TRANSITIONS[current]
