"""How events look in a terminal: what people ask first, nothing that drives the terminal."""

from __future__ import annotations

from typing import Any

import pytest

from cli import live
from cli.render import console


def shown(kind: str, /, **data: Any) -> str:
    with console.capture() as captured:
        live.event({"kind": kind, "at": "2020-01-01T10:00:00+00:00", "data": data})
    return captured.get()


def test_a_model_call_says_model_tokens_and_cost() -> None:
    words = shown(
        "llm_call",
        model="openai/gpt-oss",
        tokens={"prompt_tokens": 120, "completion_tokens": 7, "cached_tokens": 0},
        amount_nano="1234500",
        kind="estimated",
        upstream_status=200,
    )
    assert "openai/gpt-oss 120 prompt, 7 completion: 0.0012345 USD (estimated)" in words
    assert "answered 502" in shown("llm_call", model="m", tokens={}, amount_nano="0", kind="final", upstream_status=502)


def test_an_action_says_how_it_stands() -> None:
    words = shown("action", status="pending", kind="send_mail", target="bob", level="L3", words="waits for anton")
    assert "pending send_mail → bob (L3): waits for anton" in words


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        ("progress", {"words": "half of it", "percent": 50}, "50% half of it"),
        ("question", {"words": "which?", "answer": "that", "by": "Alice"}, "which? → that (Alice)"),
        ("resource", {"cpu_seconds": 1.25, "memory_bytes": 3 << 20}, "1.2 s CPU, 3.0 MiB memory"),
        (
            "resource",
            {"cpu_seconds": None, "memory_peak_bytes": 512, "wall_seconds": 2.5, "last": True},
            "2.5 s in all",
        ),
        ("file", {"direction": "out", "path": "a/b.txt", "size": 2048}, "out a/b.txt (2.0 KiB)"),
        ("run", {"what": "started", "summary": "Attempt 1 runs"}, "run       Attempt 1 runs"),
        ("approval", {"summary": "Anton approved", "cut": True}, "Anton approved (cut)"),
        ("output", {"text": "one\ntwo\n", "stream": "stdout", "bytes": 9000, "shortened": True}, "8.8 KiB in the log"),
        ("of a later release", {"what": "that"}, "that"),
        ("llm_call", {}, "0.00 USD"),
    ],
)
def test_each_kind_has_its_line(kind: str, data: dict[str, Any], words: str) -> None:
    assert words in shown(kind, **data)


def test_somebody_elses_text_drives_nothing() -> None:
    said = shown("output", text="\x1b[2J[red]x[/red]", stream="stderr")
    assert "\x1b" not in said
    assert "[red]x[/red]" in said
