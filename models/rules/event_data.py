"""What of an event's data is shown: without secrets, within 16 KiB, and such that PostgreSQL can hold it.

Covered: the values that an assistant's environment injects under names that end in `KEY`, `TOKEN`, `SECRET`,
`PASSWORD` and the like, as they are, in base64, percent-encoded and as JSON escapes them; also where a cut goes through
one, from four characters on. Not covered: what the agent itself transforms (reversed, split by other output, hashed),
values shorter than six characters, and secrets that nobody declared. What connectors use never comes inside.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast
from urllib.parse import quote, quote_plus

MAX_BYTES = 16 * 1024
HIDDEN = "[redacted]"
SHORTEST_SECRET = 6
"""What is shorter stands in ordinary text too often to be hidden there."""
SHORTEST_PART = 4
MAX_DEPTH = 12

_SECRET_NAME = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$", re.IGNORECASE)
_HARMLESS = frozenset({"awgp-inside"})
"""Said to clients that insist on a key; no credential."""


class Redactor:
    """Hides known values in text.

    Args:
        values: The secrets.
    """

    def __init__(self, values: frozenset[str]) -> None:
        forms = {form for value in values if len(value) >= SHORTEST_SECRET for form in _forms(value)}
        self._forms = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._forms))) if forms else None

    def hide(self, text: str) -> str:
        """The text without the secrets, and without the part of one that it begins or ends with."""
        return self._without_parts(self.hide_whole(text)) if text and self._pattern is not None else text

    def hide_whole(self, text: str) -> str:
        """The text without the secrets that stand in it whole: it was cut nowhere."""
        return self._pattern.sub(HIDDEN, text) if self._pattern is not None else text

    def _without_parts(self, text: str) -> str:
        end = max((_overlap(text, form) for form in self._forms), default=0)
        if end:
            text = text[:-end] + HIDDEN
        begin = max((_overlap(form, text) for form in self._forms), default=0)
        return HIDDEN + text[begin:] if begin else text


NOTHING_TO_HIDE = Redactor(frozenset())


def secrets_in(env: Mapping[str, str]) -> frozenset[str]:
    """The values of an environment whose names say that they are secret."""
    return frozenset(value for name, value in env.items() if _SECRET_NAME.search(name) and value not in _HARMLESS)


@lru_cache(maxsize=256)
def redactor(values: frozenset[str]) -> Redactor:
    """The redactor of these values, made once."""
    return Redactor(values) if values else NOTHING_TO_HIDE


def _forms(value: str) -> set[str]:
    raw = value.encode("utf-8", "replace")
    quoted = {quote(value, safe=""), quote(value), quote_plus(value)}
    forms = quoted | {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    forms |= {form.replace("/", "\\/") for form in forms}  # as some writers of JSON escape it
    # Standing within a longer text, base64 has three shapes; their first and last letters depend on the neighbours.
    for lead in range(3):
        for encoded in (base64.b64encode(b"\0" * lead + raw), base64.urlsafe_b64encode(b"\0" * lead + raw)):
            letters = encoded.decode().rstrip("=")
            core = letters[math.ceil(lead * 8 / 6) : len(letters) if (lead + len(raw)) % 3 == 0 else -1]
            forms.add(core)
    return {form for form in forms if len(form) >= SHORTEST_SECRET}


def _overlap(before: str, after: str) -> int:
    """How many characters (four at least, not all of either) `before` ends with and `after` begins with."""
    for length in range(min(len(before), len(after) - 1), SHORTEST_PART - 1, -1):
        if before.endswith(after[:length]):
            return length
    return 0


def shown(data: Mapping[str, Any], hiding: Redactor) -> dict[str, Any]:
    """The data as an event keeps it; where it was too large its longest texts are cut, and `cut` says so."""
    clean = cast("dict[str, Any]", _clean(data, hiding, 0))
    if _size(clean) <= MAX_BYTES:
        return clean
    for longest in (4096, 1024, 256, 64):
        shorter = cast("dict[str, Any]", _cut(clean, longest)) | {"cut": True}
        if _size(shorter) <= MAX_BYTES:
            return shorter
    return {"cut": True, "what": f"more than {MAX_BYTES} bytes, and not by its texts"}


def _size(data: object) -> int:
    return len(json.dumps(data, ensure_ascii=False).encode())


def _clean(value: object, hiding: Redactor, depth: int) -> object:
    if depth > MAX_DEPTH:
        return "[nested too deeply]"
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case dict():
            items = cast("dict[object, object]", value).items()
            return {_text(str(key), hiding): _clean(inner, hiding, depth + 1) for key, inner in items}
        case list() | tuple() | set() | frozenset():
            return [_clean(inner, hiding, depth + 1) for inner in cast("list[object]", value)]
        case bytes():
            return _text(value.decode("utf-8", "replace"), hiding)
        case _:
            return _text(str(value), hiding)


def _text(text: str, hiding: Redactor) -> str:
    whole = text.encode("utf-8", "replace").decode() if not text.isascii() else text
    return hiding.hide(whole.replace("\0", "\N{REPLACEMENT CHARACTER}"))


def _cut(value: object, longest: int) -> object:
    match value:
        case str():
            return value if len(value) <= longest else value[:longest] + "…"
        case dict():
            return {key: _cut(inner, longest) for key, inner in cast("dict[str, object]", value).items()}
        case list():
            return [_cut(inner, longest) for inner in cast("list[object]", value)]
        case _:
            return value
