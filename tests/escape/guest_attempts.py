"""Nonsense on the guest's socket, from inside: each is a function of ``inside/guest_socket.py``."""

from __future__ import annotations

from tests.escape.table import Attempt, Defence

HONEST = "guest_socket.honest"
"""No attack: it must be taken, or nothing is proved."""

_NONSENSE = {
    "giant_frame": "a frame of 2 GiB is taken",
    "before_hello": "output is taken before a welcome",
    "garbage": "noise is answered",
    "http": "another protocol is answered",
    "gap_in_output": "output far ahead is taken",
    "short_output": "output without its head is taken",
    "unknown_stream": "output of a ninth stream is taken",
    "time_beyond_the_calendar": "output of the year 584,554 is taken",
    "no_json": "a report that is no JSON is taken",
    "deep_json": "JSON of 200,000 levels is taken, or ends the runtime",
    "exit_of_another_type": "a report of other types is taken",
    "end_before_the_output": "an end is taken before the output",
    "artifact_without_head": "an artifact without a head is taken",
    "artifact_longer_than_said": "an artifact longer than said is taken",
    "artifact_of_another_digest": "an artifact of another digest is taken",
    "end_of_another_artifact": "the end of another artifact is taken",
    "artifact_of_negative_size": "an artifact of a negative size is taken",
    "unread_replies": "replies that nobody reads pile up in the runtime",
}
ATTEMPTS = [
    *(Attempt(f"guest_socket.{name}", won, frozenset({Defence.FRAMES})) for name, won in _NONSENSE.items()),
    Attempt(
        "guest_socket.endless_connections",
        "300 half frames keep the guest itself out",
        no_control="connections are served side by side, by construction: there is no defence to switch off",
    ),
]
