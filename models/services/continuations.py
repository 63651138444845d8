"""What the next attempt of a suspended run goes on from: the decisions, and what its agent saved."""

from __future__ import annotations

import json
from typing import Any

from models.tables.actions import ActionRow, RunStateRow
from models.tables.execution import RunRow
from sandbox.spec import Continuation, InputFile

MAX_RESULT_BYTES = 4 * 1024
"""Of one effect's answer among the decisions; the whole is read over the agent's API."""
MAX_DECISIONS_BYTES = 60 * 1024


def made_of(asked: list[ActionRow], saved: RunStateRow | None) -> Continuation:
    """The continuation for a run that has asked for these actions, oldest first."""
    state = InputFile(path="state", sha256=saved.sha256, size=saved.size) if saved is not None else None
    return Continuation(state=state, decisions=_decisions(asked))


def continuation_of(run: RunRow) -> Continuation | None:
    """What the run's next attempt goes on from."""
    return Continuation.model_validate(run.continuation) if run.continuation else None


def _decisions(asked: list[ActionRow]) -> str:
    """The answers as JSON, newest last; the oldest give way where they are too many."""
    answers = [_answer(action) for action in asked]
    while len(text := json.dumps(answers, ensure_ascii=True)) > MAX_DECISIONS_BYTES:
        answers = answers[1:]
    return text


def _answer(action: ActionRow) -> dict[str, Any]:
    result = action.result
    if result is not None and len(json.dumps(result)) > MAX_RESULT_BYTES:
        result = {"cut": True}
    return {
        "id": str(action.id),
        # As the agent gave it: the item's own prefix is ours.
        "idempotency_key": action.idempotency_key.partition("/")[2],
        "kind": action.kind,
        "target": action.target,
        "status": action.status,
        "words": action.words,
        "parameters": action.parameters,
        "result": result,
    }
