"""How workflows call activities: locally first, then durably, each step under its own `op_id`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from workflows import options  # constants: nothing in it changes, and re-importing it buys nothing

Given = TypeVar("Given")
Answer = TypeVar("Answer")
Step = Callable[[Given], Awaitable[Answer]]


class OpIds:
    """Names each step once: `<workflow id>/<step>/<generation>.<ordinal>`.

    INVARIANT: a replay, a reset and a retry name the same step the same; so the step's transaction, which writes the
    name, is done once.
    """

    def __init__(self, generation: int = 0) -> None:
        self._generation = generation
        self._ordinals: dict[str, int] = {}

    def next(self, step: str) -> str:
        """The name of the next such step."""
        ordinal = self._ordinals[step] = self._ordinals.get(step, 0) + 1
        return f"{workflow.info().workflow_id}/{step}/{self._generation}.{ordinal}"


async def record(step: Step[Given, Answer], given: Given, summary: str) -> Answer:
    """Do short database work: as a local activity, and as a normal one when that did not answer in time.

    Raises:
        FailureError: A domain error (see `domain_error`), or ten days without the database.
    """
    try:
        return await workflow.execute_local_activity(
            step,
            given,
            start_to_close_timeout=options.LOCAL_START_TO_CLOSE,
            schedule_to_close_timeout=options.LOCAL_SCHEDULE_TO_CLOSE,
            retry_policy=options.LOCAL_RETRY,
            summary=summary,
        )
    except FailureError as error:
        # What a local activity failed with comes as it is, a normal one's inside an `ActivityError`.
        if is_cancelled_exception(error) or domain_error(error) is not None:
            raise
    return await record_durably(step, given, summary)


async def record_durably(step: Step[Given, Answer], given: Given, summary: str) -> Answer:
    """Do database work that may take longer, or that must be seen in the history."""
    return await workflow.execute_activity(
        step,
        given,
        start_to_close_timeout=options.RECORD_START_TO_CLOSE,
        schedule_to_close_timeout=options.RECORD_SCHEDULE_TO_CLOSE,
        retry_policy=options.RECORD_RETRY,
        summary=summary,
    )


def domain_error(error: BaseException) -> ApplicationError | None:
    """The domain error that made an activity fail for good, if one did."""
    cause: Any = error.__cause__ if isinstance(error, ActivityError) else error
    return cause if isinstance(cause, ApplicationError) and cause.non_retryable else None
