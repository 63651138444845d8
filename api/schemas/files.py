"""Files, as the API speaks of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.fields import Answer

Direction = Literal["in", "out"]


class UploadAnswer(Answer):
    """Content that is stored."""

    sha256: str
    size: int = Field(description="Bytes.")


class FileAnswer(Answer):
    """A file that went into a work item's run, or came out of it."""

    direction: Direction
    path: str
    sha256: str
    size: int


class FileList(Answer):
    """A work item's files, in and out."""

    items: list[FileAnswer]
