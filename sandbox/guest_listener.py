"""The Unix socket that a guest comes to: one folder, one guest at a time."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

Attend = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

SOCKET = "guest.sock"


class GuestListener:
    """Listens in a folder that is bind-mounted into one sandbox.

    Attributes:
        attend: Called with each connection; may be replaced, for those that come after.
    """

    def __init__(self, attend: Attend) -> None:
        self.attend = attend
        self._server: asyncio.Server | None = None

    async def start(self, folder: Path) -> None:
        """Listens. A socket left by an earlier process is replaced; the guest finds the new one."""
        path = folder / SOCKET
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # A Unix address has 108 bytes; through the folder's descriptor any depth will do.
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            listener.bind(f"/proc/self/fd/{descriptor}/{SOCKET}")
        finally:
            os.close(descriptor)
        path.chmod(0o777)
        listener.setblocking(False)
        self._server = await asyncio.start_unix_server(self._came, sock=listener)

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.attend(reader, writer)

    def close(self) -> None:
        """Takes no more connections; those that are there go on. May be repeated."""
        if self._server is not None:
            self._server.close()
            self._server = None
