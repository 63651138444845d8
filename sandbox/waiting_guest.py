"""The guest of a prepared sandbox: it has said that it waits, and is handed on together with its connection."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from pydantic import ValidationError

from sandbox.bridge import Bridge
from sandbox.guest_frames import GuestHello, GuestProtocolError, frame, json_frame, read_frame
from sandbox.guest_listener import GuestListener

_HELLO_SECONDS = 10.0


class WaitingGuest:
    """Where it waits.

    Attributes:
        listener: Its socket; the bridge of the run that claims it takes it over.
    """

    def __init__(self) -> None:
        self.listener = GuestListener(self._attend)
        self._here = asyncio.Event()
        self._taken: asyncio.Future[Bridge] = asyncio.get_running_loop().create_future()
        self._writer: asyncio.StreamWriter | None = None

    @property
    def here(self) -> bool:
        """Whether it is connected, and waits."""
        return self._here.is_set()

    async def listen(self, folder: Path) -> None:
        """Lets it come."""
        await self.listener.start(folder)

    async def wait(self, seconds: float) -> None:
        """Waits until it is here; raises ``TimeoutError``."""
        async with asyncio.timeout(seconds):
            await self._here.wait()

    def hand_to(self, bridge: Bridge) -> None:
        """Its connection is the bridge's from now on."""
        if not self._taken.done():
            self._taken.set_result(bridge)

    def abandon(self) -> None:
        """Lets go of it without a word, as a killed process does."""
        self.listener.close()
        if self._writer is not None:
            self._writer.close()

    def close(self) -> None:
        """Sends it away."""
        self.listener.close()
        if self._writer is not None and not self._taken.done():
            self._writer.write(frame(b"F"))
            self._writer.close()

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await self._hello(reader)
        if hello is None or not hello.waiting:
            writer.close()
            return
        writer.write(json_frame(b"W", output_offset=0, artifacts_done=[]))
        self._writer = writer
        self._here.set()
        bridge = await self._until_taken(reader)
        if bridge is None:
            self._here.clear()
            writer.close()
            return
        await bridge.attend(reader, writer, hello)

    async def _hello(self, reader: asyncio.StreamReader) -> GuestHello | None:
        with contextlib.suppress(GuestProtocolError, ValidationError, TimeoutError, OSError):
            async with asyncio.timeout(_HELLO_SECONDS):
                first = await read_frame(reader)
            if first is not None and first[0] == b"H":
                return GuestHello.model_validate_json(first[1])
        return None

    async def _until_taken(self, reader: asyncio.StreamReader) -> Bridge | None:
        """None when it has gone, or says something: a guest that waits has nothing to say."""
        gone = asyncio.create_task(reader.read(1))
        await asyncio.wait({gone, self._taken}, return_when=asyncio.FIRST_COMPLETED)
        alive = not gone.done()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        return self._taken.result() if alive else None
