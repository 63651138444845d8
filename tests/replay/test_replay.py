"""Released histories, waiting ones too, replay on today's code; and today's code gives today's commands."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from tests.workflows.conftest import WORKFLOWS, strict_runner

HERE = Path(__file__).parent
RECORDED = sorted((HERE / "histories").glob("*/*.json"))
FINGERPRINTS = HERE / "fingerprints.json"
COMMANDS = {
    "EVENT_TYPE_ACTIVITY_TASK_SCHEDULED": "activity",
    "EVENT_TYPE_MARKER_RECORDED": "local",
    "EVENT_TYPE_TIMER_STARTED": "timer",
    "EVENT_TYPE_TIMER_CANCELED": "timer cancelled",
    "EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED": "activity cancelled",
    "EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED": "child",
    "EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES": "attributes",
    "EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED": "completed",
    "EVENT_TYPE_WORKFLOW_EXECUTION_FAILED": "failed",
    "EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED": "cancelled",
    "EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW": "continued",
}


def load(path: Path) -> WorkflowHistory:
    recorded = json.loads(path.read_text())
    return WorkflowHistory.from_json(recorded["workflow_id"], recorded["history"])


def commands(path: Path) -> list[str]:
    """The workflow's decisions in their order: what a change of code may not change."""
    return [
        f"{COMMANDS[event['eventType']]} {_name(event)}".strip()
        for event in json.loads(path.read_text())["history"]["events"]
        if event["eventType"] in COMMANDS
    ]


def _name(event: dict[str, Any]) -> str:
    scheduled = event.get("activityTaskScheduledEventAttributes", {})
    child = event.get("startChildWorkflowExecutionInitiatedEventAttributes", {})
    local = event.get("markerRecordedEventAttributes", {}).get("details", {}).get("data", {}).get("payloads", [])
    if local:
        return json.loads(base64.b64decode(local[0]["data"]))["activity_type"]
    return (scheduled or child).get("activityType" if scheduled else "workflowType", {}).get("name", "")


def fingerprints() -> dict[str, str]:
    return {
        str(path.relative_to(HERE / "histories")): hashlib.sha256("\n".join(commands(path)).encode()).hexdigest()[:16]
        for path in RECORDED
    }


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}/{path.stem}")
async def test_a_released_history_replays(path: Path) -> None:
    replayer = Replayer(workflows=WORKFLOWS, workflow_runner=strict_runner(), data_converter=pydantic_data_converter)
    await replayer.replay_workflow(load(path))


def test_waiting_and_ended_histories_are_kept() -> None:
    kept = {path.stem for path in RECORDED}
    assert {"work_item.l3_waiting", "work_item.queued_waiting", "work_item.running", "work_item.l1_ended"} <= kept
    assert {"approval.l3_waiting", "approval.l3_approved"} <= kept
    assert {"work_item.staged_waiting", "work_item.staged_ended", "effect.held", "effect.performed"} <= kept


def test_recorded_commands_are_the_committed_ones() -> None:
    """A folder that was released is not recorded again: whoever does sees it here."""
    assert fingerprints() == json.loads(FINGERPRINTS.read_text())
