"""The host's side of the guest protocol: one Unix socket, in one folder, for one run.

Everything that arrives is the agent's word: it can be wrong, hostile or endless, and only ever harms
its own run. What is acknowledged to the guest is on disk, so a runtime that dies loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

import structlog
from pydantic import ValidationError

from sandbox.artifact_intake import ArtifactIntake
from sandbox.guest_frames import (
    AgentExit,
    AllSent,
    ArtifactBegin,
    ArtifactEnd,
    GuestProtocolError,
    frame,
    json_frame,
    parse_output,
    read_frame,
)
from sandbox.run_folder import RunFolder
from sandbox.spec import Limits
from sandbox.spool import OutputSpool

log = structlog.get_logger(__name__)

_MAX_UNREAD_REPLIES = 256 * 1024
_MOST_PENANCE_SECONDS = 30.0


class Bridge:
    """Spool, artifacts and the guest's connection of one run.

    Args:
        folder: Where it listens and keeps.
        limits: Those of output and artifacts are held here.
        lease: Answers the seconds left of the run's lease.

    Attributes:
        exit: The guest's word on the agent's end, once it came.
        complete: Set when output and artifacts are all here; the guest then waits for ``finish``.
        over_limit: Set when the agent wrote more than it may.
    """

    def __init__(self, folder: RunFolder, limits: Limits, lease: Callable[[], float]) -> None:
        self._folder = folder
        self._lease = lease
        self.spool = OutputSpool(folder.state, limits.output_bytes)
        self.intake = ArtifactIntake(folder.artifacts, folder.state / "artifacts.jsonl", limits.artifact_bytes)
        self.exit: AgentExit | None = None
        self.first_byte: Callable[[], None] | None = None
        self.complete = asyncio.Event()
        self.over_limit = asyncio.Event()
        self.connected = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._sessions: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._finishing = False
        self._penance = 0.1
        self._closing = asyncio.Event()
        self._syncing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listens. A socket left by an earlier process is replaced; the guest finds the new one."""
        path = self._folder.bridge / "guest.sock"
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # A Unix address has 108 bytes; through the folder's descriptor any depth will do.
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            listener.bind(f"/proc/self/fd/{descriptor}/guest.sock")
        finally:
            os.close(descriptor)
        path.chmod(0o777)
        listener.setblocking(False)
        self._server = await asyncio.start_unix_server(self._attend, sock=listener)

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self.over_limit.is_set() or self._closing.is_set():
            writer.close()
            return
        if self._writer is not None:
            self._writer.close()
        self._writer = writer
        self._sessions[task] = writer
        try:
            await self._session(reader, writer)
        except (GuestProtocolError, ValidationError) as error:
            log.warning("guest_spoke_nonsense", error=str(error)[:200])
            # It will be back at once, with the same: the wait is doubled each time.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self._penance)
            self._penance = min(self._penance * 2, _MOST_PENANCE_SECONDS)
        except OSError as error:
            log.warning("guest_connection_failed", error=str(error)[:200])
        finally:
            self.intake.abandon()
            self._sessions.pop(task, None)
            if self._writer is writer:
                self._writer = None
            writer.close()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await read_frame(reader)
        if first is None or first[0] != b"H":
            return
        offset = await self.spool.make_durable()
        self._reply(writer, json_frame(b"W", output_offset=offset, artifacts_done=self.intake.done))
        self._reply(writer, self._lease_frame())
        self.connected.set()
        if self._finishing:
            self._reply(writer, frame(b"F"))
        while (received := await read_frame(reader)) is not None:
            if self._writer is not writer:
                return
            self._receive(writer, *received)
            if self.over_limit.is_set():
                return

    def _receive(self, writer: asyncio.StreamWriter, kind: bytes, payload: bytes) -> None:
        match kind:
            case b"O":
                self._receive_output(writer, payload)
            case b"X":
                self.exit = AgentExit.model_validate_json(payload)
            case b"A":
                self.intake.begin(ArtifactBegin.model_validate_json(payload))
            case b"D":
                self.intake.data(payload)
            case b"E":
                path = self.intake.end(ArtifactEnd.model_validate_json(payload))
                self._reply(writer, json_frame(b"C", path=path))
            case b"Z":
                self._receive_all_sent(AllSent.model_validate_json(payload))
            case _:
                pass  # A frame of a later version is passed over.

    def _receive_output(self, writer: asyncio.StreamWriter, payload: bytes) -> None:
        if self.first_byte is not None:
            self.first_byte()
            self.first_byte = None
        self.spool.append(parse_output(payload))
        if self.spool.over_limit:
            self.over_limit.set()
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.create_task(self._acknowledge(writer))

    async def _acknowledge(self, writer: asyncio.StreamWriter) -> None:
        """Acknowledges what is durable, as often as the disk allows."""
        while self.spool.durable < self.spool.end and not writer.is_closing():
            offset = await self.spool.make_durable()
            with contextlib.suppress(GuestProtocolError, OSError):
                self._reply(writer, json_frame(b"K", offset=offset))

    def _receive_all_sent(self, sent: AllSent) -> None:
        if self.exit is None or self.exit.output_total > self.spool.end:
            raise GuestProtocolError("the end came before the output")
        for skipped in sent.skipped:
            self.intake.skip(skipped)
        self.complete.set()

    def _reply(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if writer.transport.get_write_buffer_size() > _MAX_UNREAD_REPLIES:
            raise GuestProtocolError("it does not read its replies")
        writer.write(data)

    def signal(self, name: str) -> bool:
        """Asks the guest to signal the agent; False when no guest is connected."""
        return self._send(json_frame(b"S", signal=name))

    def tell_lease(self) -> None:
        """Tells the guest of a renewal; one that is not connected is told when it is."""
        self._send(self._lease_frame())

    def _lease_frame(self) -> bytes:
        return json_frame(b"L", seconds=self._lease())

    async def finish(self) -> None:
        """Lets the guest end, with the agent's exit code: everything is here and durable."""
        await self.spool.make_durable()
        self._finishing = True
        self._send(frame(b"F"))

    def _send(self, data: bytes) -> bool:
        writer = self._writer
        if writer is None or writer.is_closing():
            return False
        with contextlib.suppress(GuestProtocolError, OSError):
            self._reply(writer, data)
            return True
        return False

    async def drain(self, seconds: float) -> None:
        """Reads what is left in the socket of a guest that has ended."""
        if self._sessions:
            await asyncio.wait(set(self._sessions), timeout=seconds)

    async def close(self) -> None:
        """Stops listening and makes what came durable. The sandbox lives on and comes back."""
        if self._server is not None:
            self._server.close()
        self._closing.set()
        # Closed and not cancelled: a cancelled session is an error to asyncio's streams.
        for writer in self._sessions.values():
            writer.close()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        if self._syncing is not None:
            await asyncio.gather(self._syncing, return_exceptions=True)
        await self.spool.make_durable()
        self.spool.finish()
