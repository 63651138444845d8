"""Tells the broker of one run, over one connection: started, output, artifacts, ended.

A connection that ends takes its reporters along; the next one starts new ones, which go on from what
was acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog

from sandbox.course import Course, ref_text
from sandbox.link.blob_client import BlobClient, BlobRefusedError
from sandbox.link.messages import Ended, Log, Started, Used
from sandbox.runner import Usage
from sandbox.spec import Artifact, RunResult, Value

log = structlog.get_logger(__name__)

Send = Callable[[Value], Awaitable[None]]

_WINDOW = 1024 * 1024
_FRAME_BYTES = 256 * 1024
_SAY_AGAIN_SECONDS = 10.0
_USAGE_SECONDS = 15.0


async def report(course: Course, send: Send, blobs: BlobClient) -> None:
    """Reports a run from where the broker is to its acknowledged end (then it is cancelled)."""
    while course.container_id is None and course.result is None:
        await course.changed.wait()
    run_id, attempt = course.run.run_id, course.run.attempt
    if course.container_id is not None:
        await send(Started(run_id=run_id, attempt=attempt, container_id=course.container_id))
    telling = asyncio.create_task(_tell_usage(course, send))
    try:
        await _send_output(course, send)
        while course.result is None:
            await course.changed.wait()
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
    result = await _upload(course, course.result, blobs)
    while True:
        await send(Ended(run_id=run_id, attempt=attempt, result=result))
        await asyncio.sleep(_SAY_AGAIN_SECONDS)


async def _tell_usage(course: Course, send: Send) -> None:
    """Says what the sandbox has used, while that changes; its end says the last of it."""
    told = Usage()
    while True:
        await asyncio.sleep(_USAGE_SECONDS)
        usage = course.usage
        if usage != told:
            told = usage
            await send(
                Used(
                    run_id=course.run.run_id,
                    attempt=course.run.attempt,
                    at=datetime.now(UTC),
                    cpu_seconds=usage.cpu_seconds,
                    memory_bytes=usage.memory_bytes,
                    memory_peak_bytes=usage.memory_peak_bytes,
                )
            )


async def _send_output(course: Course, send: Send) -> None:
    """Streams the spool, never more than the window ahead of what is acknowledged."""
    offset = course.acked
    while True:
        while offset - course.acked >= _WINDOW:
            await course.changed.wait()
        if not await _more(course, offset):
            break
        for_now = min(_FRAME_BYTES, _WINDOW - (offset - course.acked))
        records = await asyncio.to_thread(course.spool.read, offset, for_now)
        message = Log(run_id=course.run.run_id, attempt=course.run.attempt, offset=offset, records=tuple(records))
        await send(message)
        offset = records[-1].end
    while course.acked < offset:
        await course.changed.wait()


async def _more(course: Course, offset: int) -> bool:
    if course.spool.end > offset:
        return True
    # INVARIANT: the result is set after the last byte was spooled.
    if course.result is not None:
        return False
    return await course.spool.wait_beyond(offset)


async def _upload(course: Course, result: RunResult, blobs: BlobClient) -> RunResult:
    """Brings the artifacts to the broker; one that it refuses is left out of the result, and said."""
    taken: list[Artifact] = []
    refused: list[str] = []
    for artifact in result.artifacts:
        try:
            await _upload_one(course, artifact, blobs)
            taken.append(artifact)
        except BlobRefusedError as error:
            refused.append(f"{artifact.path}: {error}")
    if not refused:
        return result
    log.warning("artifacts_refused", refused=refused, **ref_text(course.run))
    detail = f"{result.detail}; artifacts refused: {'; '.join(refused)}".removeprefix("; ")[:2000]
    return result.model_copy(update={"artifacts": tuple(taken), "detail": detail})


async def _upload_one(course: Course, artifact: Artifact, blobs: BlobClient) -> None:
    pause = 0.2
    while True:
        with contextlib.suppress(OSError, TimeoutError):
            try:
                await blobs.store(artifact.sha256, course.folder.artifacts / artifact.sha256)
                return
            except FileNotFoundError:
                raise BlobRefusedError("its file is gone from the runtime") from None
        await asyncio.sleep(pause)
        pause = min(pause * 2, 5.0)
