"""What the Temporal Web UI shows of a workflow: who must decide, why, until when, the cost, and the next command."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate

with workflow.unsafe.imports_passed_through():
    from activities import signatures as act  # value types: pure, and shared with the worker
    from models.domain.work_item import WorkItemStatus  # an enum: reloading would only make a second one

_MOST_FACTORS = 12


def _plain(words: str) -> str:
    """People's words on one line, without what Markdown would make a link, an image or markup of."""
    line = " ".join(words.split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>!|#" else letter for letter in line)


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC")


def _head(view: act.WorkItemView) -> list[str]:
    lines = [
        f"### {_plain(view.title) or 'Work item'}",
        "",
        f"**Status** {view.status.value}" + (" (held by a halt)" if view.held else ""),
    ]
    if view.reason:
        lines.append(f"**Because** {_plain(view.reason)}")
    lines.append(f"**Assistant** {_plain(view.assistant)} · **Requester** {_plain(view.requester)}")
    if view.level is not None:
        lines.append(f"**Risk** {view.level.value}, score {view.score}")
    cost = view.cost or (f"at most {view.worst_case}" if view.worst_case else "")
    if cost:
        lines.append(f"**Cost** {_plain(cost)}")
    return lines


def work_item_details(view: act.WorkItemView, work_item_id: UUID, waiting_for: str = "") -> str:
    """Markdown for a work item that waits for no human."""
    lines = _head(view)
    if waiting_for:
        lines.append(f"**Waiting for** {_plain(waiting_for)}")
    lines += _factors(view)
    command = "awgp show" if view.status.is_final else "awgp watch"
    return _markdown([*lines, "", f"**Next** `{command} {work_item_id}`"])


def approval_details(view: act.WorkItemView, opened: act.ApprovalOpened, votes: str = "") -> str:
    """Markdown for a work item that waits for a decision."""
    lines = [
        *_head(view),
        f"**Who must decide** {_plain(opened.who)}",
        f"**Until** {_moment(opened.expires_at)}",
    ]
    if votes:
        lines.append(f"**Votes** {_plain(votes)}")
    if opened.words:
        lines.append(f"**Why** {_plain(opened.words)}")
    lines += _factors(view)
    commands = f"**Next** `awgp approve {opened.approval_id}` or `awgp reject {opened.approval_id}`"
    return _markdown([*lines, "", commands])


def _factors(view: act.WorkItemView) -> list[str]:
    if not view.factors:
        return []
    shown = [f"- {_plain(factor)}" for factor in view.factors[:_MOST_FACTORS]]
    more = len(view.factors) - len(shown)
    return ["", "**Factors**", "", *shown, *([f"- and {more} more"] if more else [])]


def _markdown(lines: list[str]) -> str:
    # Two spaces at the end of a line: a line break in Markdown.
    return "\n".join(f"{line}  " if line.startswith("**") else line for line in lines)


AWAITED = {
    WorkItemStatus.SUBMITTED: "assessment",
    WorkItemStatus.ASSESSING: "assessment",
    WorkItemStatus.AWAITING_BUDGET: "budget",
    WorkItemStatus.AWAITING_APPROVAL: "approval",
    WorkItemStatus.QUEUED: "runtime",
    WorkItemStatus.RUNNING: "run",
    WorkItemStatus.AWAITING_ACTION: "action",
}
"""What an item in that status waits for (`AwgpAwaiting`); final ones wait for nothing."""


def attributes(*updates: SearchAttributeUpdate[str]) -> None:
    """Set typed search attributes (the one place, since the SDK leaves their type open)."""
    workflow.upsert_search_attributes(updates)  # pyright: ignore[reportUnknownMemberType]
