"""The agent's output on disk, by offset: what the guest may forget and what the broker may ask again.

``output.bin`` is the combined stream; ``output.idx`` has one fixed-size entry a record. The index is
searched on disk, so an agent that writes single bytes cannot fill the runtime's memory.
"""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from pathlib import Path

from sandbox.guest_frames import GuestProtocolError, OutputPiece, as_time
from sandbox.link.messages import LogRecord, OutputStream

_ENTRY = struct.Struct(">QIBQ")
_MERGE_MICROSECONDS = 20_000
_MERGE_BYTES = 64 * 1024
MAX_RECORDS = 1_000_000
"""Beyond it the run has passed its output limit: only an attack alternates its streams so often."""

_STREAMS = {1: OutputStream.STDOUT, 2: OutputStream.STDERR}
_NUMBERS = {stream: number for number, stream in _STREAMS.items()}


class OutputSpool:
    """One run's output.

    Attributes:
        end: Offset just past the last byte kept.
        over_limit: True once the agent wrote more than it may; what fits is kept.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._limit = limit
        self._bytes = os.open(folder / "output.bin", flags, 0o600)
        self._index = os.open(folder / "output.idx", flags, 0o600)
        self._records = self._whole_records()
        self._last = self._entry(self._records - 1) if self._records else None
        self.end = self._last[0] + self._last[1] if self._last else 0
        self.durable = self.end
        self.over_limit = False
        self.finished = False
        self._grown = asyncio.Event()

    def _whole_records(self) -> int:
        """Counts the entries whose bytes are all there; a cut-off tail is dropped."""
        records = os.fstat(self._index).st_size // _ENTRY.size
        size = os.fstat(self._bytes).st_size
        while records:
            offset, length, _, _ = self._entry(records - 1)
            if offset + length <= size:
                break
            records -= 1
        os.ftruncate(self._index, records * _ENTRY.size)
        return records

    def _entry(self, number: int) -> tuple[int, int, int, int]:
        return _ENTRY.unpack(os.pread(self._index, _ENTRY.size, number * _ENTRY.size))

    def append(self, piece: OutputPiece) -> None:
        """Keeps what is new of a piece; raises ``GuestProtocolError`` where one is missing before it."""
        if piece.offset > self.end:
            raise GuestProtocolError("a gap in the output")
        data = piece.data[self.end - piece.offset :]
        if self.end + len(data) > self._limit or self._records >= MAX_RECORDS:
            self.over_limit = True
            data = data[: max(0, self._limit - self.end)] if self._records < MAX_RECORDS else b""
        if data:
            self._write(data, _NUMBERS[piece.stream], piece.microseconds)
            self._wake()

    def _write(self, data: bytes, stream: int, at: int) -> None:
        view, position = memoryview(data), self.end
        while view:
            written = os.pwrite(self._bytes, view, position)
            view, position = view[written:], position + written
        last = self._last
        if (
            last
            and last[2] == stream
            and 0 <= at - last[3] < _MERGE_MICROSECONDS
            and last[1] + len(data) <= _MERGE_BYTES
        ):
            self._last = (last[0], last[1] + len(data), stream, last[3])
            place = self._records - 1
        else:
            self._last = (self.end, len(data), stream, at)
            place, self._records = self._records, self._records + 1
        os.pwrite(self._index, _ENTRY.pack(*self._last), place * _ENTRY.size)
        self.end += len(data)

    async def make_durable(self) -> int:
        """Returns the offset before which everything survives a power cut."""
        reached = self.end
        if reached > self.durable:
            await asyncio.to_thread(self._sync)
            self.durable = max(self.durable, reached)
        return self.durable

    def _sync(self) -> None:
        os.fdatasync(self._bytes)
        os.fdatasync(self._index)

    def read(self, offset: int, most: int) -> list[LogRecord]:
        """Returns records from ``offset`` on, of at most ``most`` bytes together (at least one record)."""
        records: list[LogRecord] = []
        number = self._find(offset)
        while number < self._records and most > 0:
            start, length, stream, at = self._entry(number)
            begin = max(offset, start)
            data = os.pread(self._bytes, min(start + length - begin, most), begin)
            text = base64.b64encode(data).decode()
            records.append(LogRecord(offset=begin, stream=_STREAMS[stream], at=as_time(at), data_b64=text))
            most -= len(data)
            number += 1
        return records

    def _find(self, offset: int) -> int:
        """Returns the number of the record that holds ``offset``, or of the next one."""
        low, high = 0, self._records
        while low < high:
            middle = (low + high) // 2
            start, length, _, _ = self._entry(middle)
            if start + length <= offset:
                low = middle + 1
            else:
                high = middle
        return low

    async def wait_beyond(self, offset: int) -> bool:
        """Waits until there is more than ``offset``; False when there never will be."""
        while self.end <= offset:
            if self.finished:
                return False
            await self._grown.wait()
        return True

    def finish(self) -> None:
        """Nothing more will come."""
        self.finished = True
        self._wake()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    def close(self) -> None:
        """Closes the files; may be repeated."""
        for descriptor in (self._bytes, self._index):
            if descriptor >= 0:
                os.close(descriptor)
        self._bytes = self._index = -1
