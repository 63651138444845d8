"""How events of the live timeline look: one line each, with what people ask first: what it cost, who said yes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from cli.render import console, moment, safe
from models.domain.money import format_usd

Data = Mapping[str, Any]
_MARKS = {
    "llm_call": "magenta", "action": "yellow", "approval": "yellow", "question": "yellow", "progress": "cyan",
    "resource": "dim", "file": "green", "run": "blue", "status": "blue", "output": "dim",
}  # fmt: skip


def event(happened: Data) -> None:
    """One event."""
    kind = str(happened["kind"])
    words = _WORDS.get(kind, _summary)(happened["data"])
    if words:
        cut = " [dim](cut)[/]" if happened["data"].get("cut") else ""
        colour = _MARKS.get(kind, "white")
        console.print(f"[dim]{moment(happened['at'])}[/] [{colour}]{kind.replace('_', ' '):<9}[/] {words}{cut}")


def size(count: float | None) -> str:
    """Bytes for people."""
    amount, unit = float(count or 0), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def money(nano: object) -> str:
    """An amount of an event (nano-USD as text) for people; as it stands when it is none."""
    return format_usd(int(nano)) if isinstance(nano, str | int) and str(nano).isdigit() else safe(nano)


def tokens(counted: object) -> str:
    """Tokens by class, without those that are none."""
    if not isinstance(counted, Mapping):
        return ""
    classes = cast("Mapping[str, object]", counted).items()
    return ", ".join(
        f"{count} {safe(name.removesuffix('_tokens').replace('_', ' '))}"
        for name, count in classes
        if isinstance(count, int) and count
    )


def _summary(data: Data) -> str:
    return safe(data.get("summary") or data.get("words") or data.get("what") or "")


def _llm_call(data: Data) -> str:
    counted = tokens(data.get("tokens"))
    estimated = "" if data.get("kind") in (None, "final") else f" [dim]({safe(data['kind'])})[/]"
    failed = data.get("upstream_status")
    status = f", answered {failed}" if isinstance(failed, int) and failed >= 400 else ""
    return f"[bold]{safe(data.get('model', ''))}[/] {counted}: {money(data.get('amount_nano', '0'))}{estimated}{status}"


def _action(data: Data) -> str:
    said = f": {safe(data['words'])}" if data.get("words") else ""
    level = f" ({safe(data['level'])})" if data.get("level") else ""
    doing = f"{safe(data.get('kind', ''))} → {safe(data.get('target', ''))}"
    return f"[bold]{safe(data.get('status', ''))}[/] {doing}{level}{said}"


def _progress(data: Data) -> str:
    percent = data.get("percent")
    return (f"{percent}% " if percent is not None else "") + safe(data.get("words") or data.get("text") or "")


def _question(data: Data) -> str:
    answer = f" → {safe(data['answer'])} [dim]({safe(data.get('by') or '')})[/]" if data.get("answer") else ""
    return safe(data.get("words", "")) + answer


def _resource(data: Data) -> str:
    cpu = data.get("cpu_seconds")
    parts = [f"{cpu:.1f} s CPU" if cpu is not None else ""]
    parts += [f"{size(data['memory_bytes'])} memory" if data.get("memory_bytes") else ""]
    parts += [f"at most {size(data['memory_peak_bytes'])}" if data.get("memory_peak_bytes") else ""]
    parts += [f"{data['wall_seconds']:.1f} s in all" if data.get("last") else ""]
    return ", ".join(part for part in parts if part)


def _file(data: Data) -> str:
    return f"{safe(data.get('direction', ''))} {safe(data.get('path', ''))} [dim]({size(data.get('size'))})[/]"


def _output(data: Data) -> str:
    more = f" [dim]… {size(data.get('bytes'))} in the log[/]" if data.get("shortened") else ""
    text = safe(str(data.get("text", "")).rstrip("\n")).replace("\n", "\n" + " " * 19)
    return ("[yellow]" + text + "[/]" if data.get("stream") == "stderr" else text) + more


_WORDS: Mapping[str, Callable[[Data], str]] = {
    "llm_call": _llm_call,
    "action": _action,
    "progress": _progress,
    "question": _question,
    "resource": _resource,
    "file": _file,
    "output": _output,
}
"""The rest says itself what happened."""
