"""What a chunk of output says in the live timeline: one event a stream, with a preview; the bytes are in the log."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from models.domain.events import EventKind, ItemEvent
from sandbox.link.messages import LogRecord, OutputStream, RunRef

PREVIEW_BYTES = 4096


def output_events(work_item_id: UUID, run: RunRef, records: Sequence[LogRecord]) -> list[ItemEvent]:
    """The events of a chunk, in the order in which its streams first speak.

    The preview begins with what came first; `shortened` says that there is more in the log, from `start` to `end`.
    """
    streams: dict[OutputStream, list[LogRecord]] = {}
    for record in records:
        streams.setdefault(record.stream, []).append(record)
    return [_event(work_item_id, run, stream, said) for stream, said in streams.items()]


def _event(work_item_id: UUID, run: RunRef, stream: OutputStream, said: Sequence[LogRecord]) -> ItemEvent:
    size, preview = 0, b""
    for record in said:
        data = record.data
        size += len(data)
        if len(preview) < PREVIEW_BYTES:
            preview += data[: PREVIEW_BYTES - len(preview)]
    data = {
        "run_id": str(run.run_id),
        "attempt": run.attempt,
        "stream": stream.value,
        "start": said[0].offset,
        "end": said[-1].end,
        "bytes": size,
        "text": preview.decode("utf-8", "replace"),
        "shortened": size > len(preview),
    }
    return ItemEvent(work_item_id=work_item_id, kind=EventKind.OUTPUT, data=data, at=said[0].at)
