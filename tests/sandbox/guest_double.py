"""A guest spoken from Python, over the real socket: what an agent's sandbox says to the bridge."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import struct
import time
from pathlib import Path

from sandbox.guest_frames import frame, json_frame, read_frame


def output(offset: int, data: bytes, stream: int = 1) -> bytes:
    return frame(b"O", struct.pack(">QBQ", offset, stream, time.time_ns() // 1000) + data)


class GuestDouble:
    """One connection of a guest."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.welcome: dict[str, object] = {}

    @classmethod
    async def connect(cls, socket: Path) -> GuestDouble:
        # A Unix address has 108 bytes, and pytest's folders are deep.
        folder = os.open(socket.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            guest = cls(*await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{socket.name}"))
        finally:
            os.close(folder)
        guest.writer.write(json_frame(b"H", pid=1, guest_version="test"))
        try:
            guest.welcome = await guest.expect(b"W")
        except BaseException:
            await guest.close()
            raise
        return guest

    async def expect(self, kind: bytes) -> dict[str, object]:
        while True:
            received = await asyncio.wait_for(read_frame(self.reader), 10)
            assert received is not None, f"closed while waiting for {kind!r}"
            if received[0] == kind:
                return json.loads(received[1]) if received[1] else {}

    async def acked(self, offset: int) -> None:
        while (await self.expect(b"K"))["offset"] != offset:
            pass

    def artifact(self, path: str, data: bytes, *, digest: str | None = None) -> None:
        self.writer.write(json_frame(b"A", path=path, size=len(data)))
        if data:
            self.writer.write(frame(b"D", data))
        self.writer.write(json_frame(b"E", path=path, sha256=digest or hashlib.sha256(data).hexdigest()))

    def exited(self, code: int, total: int) -> None:
        self.writer.write(json_frame(b"X", exit_code=code, signal=None, output_total=total))

    def all_sent(self, count: int = 0) -> None:
        self.writer.write(json_frame(b"Z", artifacts=count, skipped=[]))

    async def closed(self) -> None:
        while await asyncio.wait_for(read_frame(self.reader), 10) is not None:
            pass

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()
