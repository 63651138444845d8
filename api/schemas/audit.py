"""The audit trail, as the API speaks of it."""

from __future__ import annotations

from api.schemas.fields import Answer
from models.domain.views import AuditView


class AuditPage(Answer):
    """Events of a trail, newest first."""

    items: list[AuditView]
    next_cursor: str | None
