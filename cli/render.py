"""How things look in a terminal, also one as narrow as a phone."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from cli.failures import CommandError

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

_COLOURS = {
    "succeeded": "green", "failed": "red", "rejected": "red", "expired": "yellow", "cancelled": "yellow",
    "halted": "red", "running": "cyan", "queued": "cyan", "awaiting_approval": "magenta", "awaiting_budget": "magenta",
    "approved": "green", "pending": "magenta", "away": "red", "ok": "green", "degraded": "yellow",
}  # fmt: skip
FINAL = frozenset({"succeeded", "failed", "rejected", "expired", "cancelled", "halted"})


def status(word: str) -> str:
    """A status in its colour, as markup."""
    colour = _COLOURS.get(word, "white")
    return f"[{colour}]{escape(word.replace('_', ' '))}[/]"


def moment(text: str | None) -> str:
    """A time of the API in the reader's own zone; empty for none."""
    if not text:
        return ""
    at = datetime.fromisoformat(text).astimezone()
    today = datetime.now(UTC).astimezone().date()
    return at.strftime("%H:%M:%S") if at.date() == today else at.strftime("%Y-%m-%d %H:%M")


def safe(text: object) -> str:
    """Somebody else's text: neither markup of ours nor a control sequence of the terminal's."""
    return escape(
        "".join(
            letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in str(text)
        )
    )


def line(name: str, value: object) -> None:
    """One named value; nothing when it is empty."""
    if value not in (None, "", [], {}):
        console.print(f"[dim]{name:<11}[/]{value}")


def item_card(item: dict[str, Any]) -> None:
    """A work item of a list, in three short lines."""
    risk = f" {item['risk_level']}" if item.get("risk_level") else ""
    console.print(f"{status(item['status'])}{risk} [dim]{moment(item['created_at'])}[/]")
    console.print(f"  [bold]{safe(item['title'])}[/]")
    console.print(f"  [dim]{item['id']}[/]")


def item_whole(item: dict[str, Any]) -> None:
    """A work item, whole."""
    console.print(f"[bold]{safe(item['title'])}[/]")
    line("id", item["id"])
    line("status", status(item["status"]) + (" [red](held by a halt)[/]" if item["held"] else ""))
    line("why", safe(item["reason"]) if item["reason"] else "")
    line("assistant", safe(item["assistant"]))
    line("asked by", safe(item["requester"]))
    if item.get("risk_level"):
        line("risk", f"{item['risk_level']} (score {item['risk_score']})")
    for factor in item.get("factors", []):
        console.print(f"{'':<11}[dim]·[/] {safe(factor)}")
    line("cost", item["cost"] or f"at most {item['worst_case']}")
    if item["costs"]["calls"]:
        costs(item["costs"])
    line("outcome", safe(item["outcome"]) if item["outcome"] else "")
    line("attempt", item["attempt"] if item["attempt"] > 1 else "")
    line("created", moment(item["created_at"]))
    line("ended", moment(item["ended_at"]))


def costs(split: dict[str, Any]) -> None:
    """What a work item has cost, by what for."""
    line("sandbox", split["sandbox"])
    estimated = f", {split['estimated_calls']} estimated" if split["estimated_calls"] else ""
    counted = ", ".join(f"{count} {safe(name)}" for name, count in split["tokens"].items() if count)
    line("models", f"{split['llm']} [dim]({split['calls']} calls{estimated}{'; ' + counted if counted else ''})[/]")


def approval_card(approval: dict[str, Any]) -> None:
    """An approval with what one needs to decide."""
    console.print(f"{status(approval['status'])} [bold]{approval['level']}[/] {safe(approval['title'])}")
    line("approval", approval["id"])
    line("work item", approval["work_item_id"] or "none: the agent runs elsewhere")
    line("company", safe(approval["company"]))
    line("asked by", f"{safe(approval['requester'])} for {safe(approval['assistant'])}")
    for action in approval["actions"]:
        _asked_action(action)
    for words in approval["earlier"]:
        line("before", f"[dim]{safe(words)}[/]")
    for factor in approval["factors"]:
        console.print(f"{'':<11}[dim]·[/] {safe(factor['words'])}")
    if approval["subject"] == "work_item":
        line("cost", f"at most {approval['worst_case']}")
    line("decides", safe(approval["who"]))
    line("votes", safe(approval["votes_in_words"]))
    line("until", moment(approval["expires_at"]))
    if approval["status"] == "pending" and not approval["may_decide"]:
        console.print(f"[yellow]You may not decide it:[/] {safe(approval['refusal'])}")


def _asked_action(action: dict[str, Any]) -> None:
    """Exactly what would be done, as it is approved."""
    line("does", f"{action['level']} {safe(action['kind'])} → {safe(action['target'])}")
    if action["why"]:
        line("because", safe(action["why"]))
    for name in ("parameters", "effect"):
        if action[name]:
            line(name, safe(json.dumps(action[name], ensure_ascii=False, sort_keys=True)))


def action_card(action: dict[str, Any]) -> None:
    """An action and what became of it."""
    again = f" [dim](asked again {action['asked_again']} times)[/]" if action["asked_again"] else ""
    what = f"{safe(action['kind'])} → {safe(action['target'])}"
    console.print(f"{status(action['status'])} [bold]{action['level']}[/] {what}{again}")
    line("action", action["id"])
    line("work item", action["work_item_id"] or "none: the agent runs elsewhere")
    if action["words"]:
        line("words", safe(action["words"]))


def event(happened: dict[str, Any]) -> None:
    """One line of a timeline."""
    console.print(f"[dim]{moment(happened['at'])}[/] {safe(happened['summary'])}")


def log_text(text: str, stream: str) -> None:
    """A piece of a run's output as it is, but for control sequences."""
    clean = "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
    console.print(Text(clean, style="yellow" if stream in {"2", "err", "stderr"} else ""), end="")


def failure(failed: CommandError) -> None:
    """Why the command fails, and what mends it."""
    errors.print(f"[red]{safe(failed.words)}[/]")
    if failed.detail:
        errors.print(safe(failed.detail))
    if failed.mend:
        errors.print(f"[dim]try:[/] {safe(failed.mend)}")
