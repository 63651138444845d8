"""The one place in which a domain error becomes a failure that Temporal understands.

A domain error says that asking again gives the same answer, so it is not retried; everything else is (a database that
is away, a bug that is being mended), as the step's retry policy says.
"""

from __future__ import annotations

from typing import Any

from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from models.domain.errors import AwgpError, DependencyAway

LONGEST_WORDS = 500
"""Of an error's text that crosses Temporal: enough for a person, never a document."""


def as_failure(error: AwgpError) -> ApplicationError:
    """The failure for a domain error: its type, its words, and whether to try again."""
    words = error.detail if len(error.detail) <= LONGEST_WORDS else f"{error.detail[:LONGEST_WORDS]}…"
    return ApplicationError(words, type=error.type, non_retryable=not isinstance(error, DependencyAway))


class DomainErrors(Interceptor):
    """Turns every domain error that leaves an activity into its failure."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Wrap an activity."""
        return _Inbound(next)


class _Inbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 - the SDK's names
        try:
            return await super().execute_activity(input)
        except AwgpError as error:
            raise as_failure(error) from error
