"""What an agent is told when the bridge itself refuses: problem documents (RFC 9457), like the API's."""

from __future__ import annotations

import json

from aiohttp import web

MEDIA_TYPE = "application/problem+json"
TYPE_BASE = "https://awgp.example.com/problems/"


class AgentRefusedError(Exception):
    """A request that is not sent on.

    Attributes:
        slug: Names the kind, for programs.
        retry_after: Seconds after which the same request may succeed; None: it will not.
    """

    def __init__(self, status: int, slug: str, title: str, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.title = title
        self.detail = detail
        self.retry_after = retry_after


def too_large(most: int) -> AgentRefusedError:
    """The body is larger than its route takes."""
    detail = "This request takes no body." if most == 0 else f"The body may have {most} bytes here."
    return AgentRefusedError(413, "too-large", "Request body too large", detail)


def document(error: AgentRefusedError) -> dict[str, object]:
    """The members of its problem document."""
    return {"type": TYPE_BASE + error.slug, "title": error.title, "status": error.status, "detail": error.detail}


def render(error: AgentRefusedError) -> web.Response:
    """The answer."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return web.Response(
        status=error.status,
        body=json.dumps(document(error)).encode(),
        headers={"Content-Type": MEDIA_TYPE, **headers},
    )
