"""Errors are values of the domain: one class a case, each with its type, title and HTTP status.

One renderer turns them into `application/problem+json` (RFC 9457), one place turns them into Temporal failures.
"""

from __future__ import annotations

from typing import Any, ClassVar


class AwgpError(Exception):
    """Base of all domain errors.

    Attributes:
        type: Stable slug; the problem's `type` is `https://awgp.example.com/problems/<slug>`.
        title: What kind of thing went wrong, the same for every occurrence.
        status: HTTP status.
        detail: What happened this time, and where.
        extra: Further members of the problem document.
    """

    type: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    status: ClassVar[int] = 500

    def __init__(self, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra


class InvalidInput(AwgpError):
    """The request is well-formed, but a value in it is not acceptable; `errors` lists {where, what}."""

    type, title, status = "invalid-input", "Invalid input", 422


class NotFound(AwgpError):
    """There is no such thing, or it belongs to somebody else: the answer is the same."""

    type, title, status = "not-found", "Not found", 404


class Forbidden(AwgpError):
    """The principal is known, and may not do this."""

    type, title, status = "forbidden", "Not allowed", 403


class Unauthenticated(AwgpError):
    """No bearer token, or one that does not hold."""

    type, title, status = "unauthenticated", "Not authenticated", 401


class Conflict(AwgpError):
    """The thing is not in a state in which this can be done."""

    type, title, status = "conflict", "Conflict", 409


class IdempotencyMismatch(AwgpError):
    """The idempotency key was used before, for another request."""

    type, title, status = "idempotency-mismatch", "Idempotency key was used for another request", 422


class NotDecidable(AwgpError):
    """This principal may not decide this approval; `code` says which rule refused."""

    type, title, status = "not-decidable", "You may not decide this", 403


class AlreadyDecided(AwgpError):
    """The approval has its outcome, or this human has voted."""

    type, title, status = "already-decided", "Already decided", 409


class WarrantRefused(AwgpError):
    """A warrant was not minted or does not hold; `code` says why."""

    type, title, status = "warrant-refused", "No leave to run", 403


class DependencyAway(AwgpError):
    """PostgreSQL, Temporal, Redis or the blob store did not answer."""

    type, title, status = "dependency-away", "A dependency is away", 503
