"""What Temporal wrote down of a path: its events by kind, and when an activity was started."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

Events = Sequence[HistoryEvent]
NORMAL = ("place_run", "follow_run", "bare_place", "bare_follow")
"""Activities that are never local."""


async def events(client: Client, workflow_id: str) -> Events:
    """A workflow's history."""
    return (await client.get_workflow_handle(workflow_id).fetch_history()).events


def kind(event: HistoryEvent) -> str:
    """The event's kind, in words."""
    return EventType.Name(event.event_type).removeprefix("EVENT_TYPE_").lower().replace("_", " ")


def started_at(history: Events, activity: str) -> datetime:
    """When the first activity of a type was started."""
    scheduled = next(
        event.event_id
        for event in history
        if event.activity_task_scheduled_event_attributes.activity_type.name == activity
    )
    started = next(
        event for event in history if event.activity_task_started_event_attributes.scheduled_event_id == scheduled
    )
    return started.event_time.ToDatetime(UTC)


def failed_tasks(histories: Collection[Events]) -> Counter[str]:
    """Why workflow tasks failed, and how often."""
    causes = (
        event.workflow_task_failed_event_attributes.cause
        for history in histories
        for event in history
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
    )
    return Counter(
        WorkflowTaskFailedCause.Name(cause).removeprefix("WORKFLOW_TASK_FAILED_CAUSE_").lower() for cause in causes
    )


def fallen_back(histories: Collection[Events]) -> Counter[str]:
    """Local activities that did not answer in time and were done as normal ones, by type."""
    types = (
        event.activity_task_scheduled_event_attributes.activity_type.name
        for history in histories
        for event in history
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    )
    return Counter(name for name in types if name not in NORMAL)


def table(paths: Mapping[str, Collection[Events]]) -> list[str]:
    """Lines of a table: mean events of each kind on each path, most frequent first; last the median of all."""
    means: dict[str, Counter[str]] = {}
    for name, histories in paths.items():
        counted = Counter(kind(event) for history in histories for event in history)
        means[name] = Counter({what: number / len(histories) for what, number in counted.items()})  # pyright: ignore[reportArgumentType]
    total = Counter[str]()
    for mean in means.values():
        total += mean
    lines = [f"{'events of a history (mean)':<44}" + "".join(f"{name:>16}" for name in paths)]
    for what, _ in total.most_common():
        lines.append(f"  {what:<42}" + "".join(f"{means[name][what]:>16.1f}" for name in paths))
    medians = [statistics.median(len(history) for history in histories) for histories in paths.values()]
    lines.append(f"  {'all (median)':<42}" + "".join(f"{number:>16.0f}" for number in medians))
    return lines
