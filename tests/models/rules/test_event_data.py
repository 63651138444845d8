"""What of an event's data is shown: no secret in any of its forms, nothing too large, all of it storable."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from models.rules import event_data

SECRET = "sk-live-0123456789abcdef"


@pytest.mark.parametrize("name", ["API_KEY", "OPENAI_API_KEY", "db_password", "TOKEN", "GH_TOKEN", "MY_SECRET"])
def test_secret_names(name: str) -> None:
    assert event_data.secrets_in({name: SECRET}) == {SECRET}


@pytest.mark.parametrize("name", ["MODE", "KEYBOARD", "TOKENS_MAX", "MONKEY"])
def test_names_that_are_not_secret(name: str) -> None:
    assert event_data.secrets_in({name: SECRET}) == frozenset()


@pytest.mark.parametrize("lead", ["", "a", "ab", "user:"])
def test_encoded_secrets_are_hidden(lead: str) -> None:
    value = 'pa"ss/wörd+with=all'
    hiding = event_data.redactor(frozenset({value}))
    for form in (
        value,
        quote(value, safe=""),
        json.dumps(value),
        base64.b64encode((lead + value + ":x").encode()).decode(),
        base64.urlsafe_b64encode((lead + value).encode()).decode(),
    ):
        assert event_data.HIDDEN in hiding.hide(f"before {form} after"), form


def test_a_secret_that_a_cut_goes_through_is_hidden_on_both_sides() -> None:
    hiding = event_data.redactor(frozenset({SECRET}))
    for cut in range(4, len(SECRET) - 3):
        before, after = hiding.hide("say " + SECRET[:cut]), hiding.hide(SECRET[cut:] + " said")
        assert (before, after) == ("say [redacted]", "[redacted] said")


def test_what_postgresql_cannot_hold_is_made_so_that_it_can() -> None:
    data = {"a\0": "b\0\ud800", "n": float("nan"), "bytes": b"\xff", "when": object}
    found = event_data.shown(data, event_data.NOTHING_TO_HIDE)
    json.dumps(found, allow_nan=False).encode()
    assert "\0" not in json.dumps(found, ensure_ascii=False)


def test_too_large_is_cut_and_says_so() -> None:
    small = event_data.shown({"text": "x" * 16_000}, event_data.NOTHING_TO_HIDE)
    assert "cut" not in small
    cut = event_data.shown({"text": "€" * 100_000, "n": 1}, event_data.NOTHING_TO_HIDE)
    assert cut["cut"] is True
    assert cut["n"] == 1
    assert len(json.dumps(cut, ensure_ascii=False).encode()) <= event_data.MAX_BYTES
    hopeless = event_data.shown({str(n): n for n in range(10_000)}, event_data.NOTHING_TO_HIDE)
    assert hopeless["cut"] is True
