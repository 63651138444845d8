"""The Unix sockets that a sandbox comes to: how they are made, and the guest's, which serves one guest at a time."""

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
        self._server = await asyncio.start_unix_server(self._came, sock=listen_in(folder, SOCKET))

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.attend(reader, writer)

    def close(self) -> None:
        """Takes no more connections; those that are there go on. May be repeated."""
        if self._server is not None:
            self._server.close()
            self._server = None


def listen_in(folder: Path, name: str) -> socket.socket:
    """A listening Unix socket, open to the sandbox's user; one that is there is replaced."""
    path = folder / name
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # A Unix address has 108 bytes; through the folder's descriptor any depth will do.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        listener.bind(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)
    path.chmod(0o777)
    listener.setblocking(False)
    return listener
