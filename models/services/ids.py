"""Ids are UUIDv7 made here, since the oldest PostgreSQL we support cannot make them."""

from __future__ import annotations

from uuid import UUID

import uuid_utils


def new_id() -> UUID:
    """A new UUIDv7: unique, and in the order of time."""
    return UUID(bytes=uuid_utils.uuid7().bytes)
