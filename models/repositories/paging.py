"""Opaque cursors over UUIDv7 keys, newest first, and over names."""

from __future__ import annotations

import base64
import binascii
from typing import Protocol, TypeVar
from uuid import UUID

from models.domain.errors import InvalidInput

MAX_PAGE = 200


def cursor_of(last: UUID) -> str:
    """The cursor that goes on after the row `last`."""
    return base64.urlsafe_b64encode(last.bytes).decode().rstrip("=")


def after(cursor: str | None) -> UUID | None:
    """The id that a cursor names.

    Raises:
        InvalidInput: It is none that we gave.
    """
    if cursor is None:
        return None
    try:
        return UUID(bytes=base64.b64decode(cursor + "==", altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, TypeError) as error:
        raise _unknown() from error


def _unknown() -> InvalidInput:
    return InvalidInput("the cursor is none that a page gave", errors=[{"where": "cursor", "what": "unknown cursor"}])


def cursor_of_name(last: str) -> str:
    """The cursor that goes on after the row of this name."""
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def name_after(cursor: str | None) -> str | None:
    """The name that a cursor carries.

    Raises:
        InvalidInput: It is none that we gave.
    """
    if cursor is None:
        return None
    try:
        name = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except ValueError as error:
        raise _unknown() from error
    if "\0" in name:  # PostgreSQL keeps no such text
        raise _unknown()
    return name


def page_size(limit: int) -> int:
    """A page's size, within what one answer carries."""
    return max(1, min(limit, MAX_PAGE))


class _Keyed(Protocol):
    @property
    def id(self) -> UUID: ...


Row = TypeVar("Row", bound=_Keyed)


def cut(found: list[Row], size: int) -> tuple[list[Row], str | None]:
    """The page out of `size + 1` rows that were asked for, and the cursor if there is more."""
    page = found[:size]
    return page, cursor_of(page[-1].id) if len(found) > size else None
